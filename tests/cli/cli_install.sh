#!/usr/bin/env bash
# test: tier=default timeout=120
# What `cmake --install` leaves behind stands by itself: the program, its manual, completion, recipes, job scripts, modulefile.
set -eu
build=$(dirname "$1")
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

fail() { echo "install: $*" >&2 && exit 1; }
has() { [[ " ${COMPREPLY[*]} " == *" $1 "* ]] || fail "completion offers '${COMPREPLY[*]}', without '$1'"; }

# complete WORD ...: what completion offers for the last word.
complete_words() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _espalier
}

cmake --install "$build" --prefix "$prefix" > "$prefix/log" 2>&1 || { tail -5 "$prefix/log" && fail "cmake --install failed"; }
program=$prefix/bin/espalier
[ "$("$program" --version)" = "$("$1" --version)" ] || fail "the installed program is another"
[ -f "$prefix/share/espalier/slurm/full_finetuning.sbatch" ] || fail "no job scripts"
(cd "$prefix/share/espalier" && "$program" plan configs/quickstart.yaml > /dev/null) || fail "an installed recipe cannot be planned"

for page in man1/espalier.1 man5/espalier-config.5; do
    [ -s "$prefix/share/man/$page" ] || fail "no manual page $page"
    if command -v groff > /dev/null; then
        warnings=$(groff -man -Tutf8 -ww -z "$prefix/share/man/$page" 2>&1)
        [ -z "$warnings" ] || fail "$page: $warnings"
    fi
done
for verb in $("$program" --help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    grep -qx ".SS $verb" "$prefix/share/man/man1/espalier.1" || fail "the manual lacks the verb $verb"
done
keys=$("$program" config --reference | grep -c '^| `')
[ "$(grep -c '^\.TP' "$prefix/share/man/man5/espalier-config.5")" = "$keys" ] || fail "the manual of configs has not all $keys keys"

. "$prefix/share/bash-completion/completions/espalier"
complete_words "$program" tr && has train
complete_words "$program" train --re && has --resume
complete_words "$program" train --set optim.l && has optim.lr=
complete_words "$program" train "$prefix/share/espalier/configs/quick" && has "$prefix/share/espalier/configs/quickstart.yaml"
complete_words "$program" zz && [ ${#COMPREPLY[@]} = 0 ] || fail "a verb that is none is completed to '${COMPREPLY[*]}'"

module=$(echo "$prefix"/share/modulefiles/espalier/*)
[ "$(head -1 "$module")" = "#%Module1.0" ] && ! grep -q '@' "$module" || fail "the modulefile has gaps"
grep -q "$prefix" "$module" || fail "the modulefile names another place than it was installed to"
