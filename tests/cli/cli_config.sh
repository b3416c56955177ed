#!/usr/bin/env bash
# test: tier=short timeout=30
# cli_config.sh ESPALIER: verbs, options, messages and exit codes, by the verb that needs nothing else.
set -u
espalier=$1
failures=0

# expect CODE TEXT ARG...: runs espalier ARG...; its exit code must be CODE and what it prints must hold TEXT.
expect() {
    local code=$1 text=$2 out rc
    shift 2
    out=$("$espalier" "$@" 2>&1)
    rc=$?
    if [ "$rc" != "$code" ] || [[ $out != *"$text"* ]]; then
        echo "espalier $*: expected exit $code and '$text', got exit $rc and: $out"
        failures=$((failures + 1))
    fi
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf 'run:\n  seed: 7\noptim:\n  learning_rate: 1\n' > "$folder/bad.yaml"
printf 'run:\n  seed: 7\n' > "$folder/good.yaml"

expect 2 "a verb is missing"
expect 0 "usage: espalier VERB" --help
expect 0 "espalier 0." --version
expect 2 "unknown verb 'cofnig'; did you mean 'config'?" cofnig
expect 2 "unknown verb 'xyzzy'; \`espalier --help\` lists them" xyzzy
expect 0 "--set KEY=VALUE" config --help
expect 2 "unknown option '--sett'; did you mean '--set'?" config --sett a
expect 2 "unknown option '-s'" config -s
expect 2 "--set wants a value" config --set
expect 2 "--hash takes no value" config --hash=1
expect 2 "one argument too many" config a b
expect 2 "bad.yaml:4: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?" config "$folder/bad.yaml"
expect 2 "absent.yaml: cannot be opened: No such file" config "$folder/absent.yaml"
expect 2 "--set: run.seed wants a whole number, found 'x'" config --set run.seed=x
expect 0 "seed: 7" config "$folder/good.yaml"
expect 0 "seed: 8" config "$folder/good.yaml" --set run.seed=8
expect 0 "dir: \"-x\"" config --set=run.dir=-x -- "$folder/good.yaml"
expect 0 "| \`optim.lr\` |" config --reference
expect 0 "json-schema.org" config --schema

"$espalier" config "$folder/good.yaml" > "$folder/resolved.yaml"
if ! "$espalier" config "$folder/resolved.yaml" | cmp - "$folder/resolved.yaml"; then
    echo "a printed config does not read back to itself"
    failures=$((failures + 1))
fi
if [ "$("$espalier" config "$folder/good.yaml" --hash)" != "$("$espalier" config "$folder/resolved.yaml" --hash)" ]; then
    echo "a printed config has another hash"
    failures=$((failures + 1))
fi
if [ -w /dev/full ] && "$espalier" config > /dev/full 2>&1; then
    echo "a full stdout goes unnoticed"
    failures=$((failures + 1))
fi
exit $((failures > 0))
