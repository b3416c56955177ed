#!/usr/bin/env bash
# test: tier=short timeout=120
# cli_chat.sh ESPALIER: the recipe of conversations runs; what is learned is shown; bad records are named, or skipped and counted.
set -u
espalier=$1
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    echo "FAIL: $*"
    failures=$((failures + 1))
}
recipe="configs/chat_support.yaml --set run.dir=$work/run --set data.cache=$work/cache"

"$espalier" tokenize $recipe --show 1 > "$work/shown" 2> "$work/log" || fail "tokenize: $(cat "$work/log")"
grep -q '^\[\[\[system\]$' "$work/shown" || fail "what is not learned is in brackets: $(cat "$work/shown")"
grep -q '^\]\]Gladly.*<|endoftext|>\[\[$' "$work/shown" || fail "an answer is learned up to its end: $(cat "$work/shown")"

"$espalier" train $recipe --set train.steps=2 --set train.eval_every=0 --set train.micro_batches=1 \
    > "$work/log" 2>&1 || fail "train: $(tail -3 "$work/log")"
cmp -s configs/data/support_chat.jinja "$work/run/model/chat_template.jinja" || fail "the template did not go into the export"
grep -q 'validation loss' "$work/log" || fail "no evaluation: $(tail -3 "$work/log")"

{
    head -2 configs/data/support.jsonl
    echo '{"messages": [{"role": "user", "content": "a"}]}'
    echo '{"messages": [{"role": "critic", "content": "a"}, {"role": "assistant", "content": "b"}]}'
} > "$work/bad.jsonl"
bad="$recipe --set data.train=$work/bad.jsonl"
"$espalier" tokenize $bad > "$work/shown" 2> "$work/log" && fail "a bad record went through"
grep -q 'bad.jsonl:3: no message is the assistant' "$work/log" || fail "not named: $(cat "$work/log")"
"$espalier" tokenize $bad --set data.on_error=skip --show 9 > "$work/shown" 2> "$work/log" || fail "skipping: $(cat "$work/log")"
grep -q 'bad.jsonl:4: .*support_chat.jinja:5:13: the template refuses the conversation: the roles are' "$work/log" || fail "not named: $(cat "$work/log")"
grep -q '^text 2' "$work/shown" && ! grep -q '^text 3' "$work/shown" || fail "two records are left: $(cat "$work/shown")"

"$espalier" tokenize $recipe --set data.sequence_length=60 > "$work/shown" 2> "$work/log" || fail "cutting: $(cat "$work/log")"
grep -q 'too long and cut' "$work/log" || fail "cut silently: $(cat "$work/log")"
grep -q 'are not used at all' "$work/log" || fail "left out silently: $(cat "$work/log")"
"$espalier" tokenize $recipe --set data.placement=windows > /dev/null 2>&1 && fail "windows of conversations went through"

cat > "$work/prompts.jsonl" << 'END'
{"prompt": "What is this?", "response": "A test."}
END
"$espalier" tokenize $recipe --set data.records=prompts --set data.train="$work/prompts.jsonl" > "$work/shown" 2> "$work/log" || fail "prompts: $(cat "$work/log")"
grep -q '^\]\]A test.<|endoftext|>$' "$work/shown" || fail "the response is learned: $(cat "$work/shown")"
exit $((failures > 0))
