# Completion for bash (and zsh after `bashcompinit`): verbs, options and keys are asked of the program itself.
_espalier() {
    local program=${COMP_WORDS[0]} verb=${COMP_WORDS[1]:-} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" --help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p') --help --version" -- "$word")
    elif [ "$before" = --set ]; then
        mapfile -t COMPREPLY < <(compgen -S = -W "$("$program" config --reference | sed -n 's/^| `\([a-z_.0-9]*\)` .*/\1/p')" -- "$word")
        compopt -o nospace 2> /dev/null
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$("$program" "$verb" --help 2> /dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p')" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        compopt -o filenames 2> /dev/null
    fi
}
complete -F _espalier espalier
