#!/bin/sh
# manual.sh ESPALIER 1|5: the manual page of the program (1) or of its configs (5), made of what its own help prints.
set -eu
program=$1
version=$("$program" --version | cut -d' ' -f2)

# Text as it stands: a backslash, and a dot or quote at the begin of a line, would mean something to roff.
verbatim() {
    echo .nf
    sed -e 's/\\/\\e/g' -e "s/^[.']/\\\\\&&/" -e 's/-/\\-/g'
    echo .fi
}

program_page() {
    cat << END
.TH ESPALIER 1 "" "Espalier $version" "User Commands"
.SH NAME
espalier \- train language models on CPUs, GPUs and clusters
.SH SYNOPSIS
.B espalier
.I VERB
[arguments]
.SH DESCRIPTION
END
    "$program" --help | sed '1,2d' | verbatim
    echo .SH VERBS
    "$program" --help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p' | while read -r verb; do
        echo ".SS $verb"
        "$program" "$verb" --help | verbatim
    done
    cat << END
.SH FILES
.TP
.I run.dir
config.yaml, metrics.jsonl, log.txt, TensorBoard events, tokenizer/, checkpoints/, evaluations/, at the end model/ or adapter/, and done.
.SH SEE ALSO
.BR espalier\-config (5),
.BR mpirun (1),
.BR srun (1),
.BR h5dump (1)
END
}

# Rows of Markdown tables become entries; headings become sections.
config_page() {
    cat << END
.TH ESPALIER\-CONFIG 5 "" "Espalier $version" "File Formats"
.SH NAME
espalier\-config \- configs of espalier
.SH DESCRIPTION
A config is YAML: sections, each with its keys.
.B \-\-set section.key=value
overrides one.
END
    "$program" config --reference | awk '
        function plain(text) { gsub(/\\/, "\\e", text); gsub(/`/, "", text); gsub(/-/, "\\-", text); return text }
        /^## / { print ".SH " toupper(plain(substr($0, 4))) }
        /^[|] `/ {
            last = $0; sub(/ [|]$/, "", last); n = split(last, field, / [|] /); sub(/^[|] /, "", field[1])
            print ".TP\n.B " plain(field[1]) "\n" plain(field[2]) (field[3] != "" ? " (" plain(field[3]) ")" : "") "\n.br\n" plain(field[4])
        }'
    cat << END
.SH SEE ALSO
.BR espalier (1)
END
}

case $2 in
1) program_page ;;
5) config_page ;;
*) echo "manual.sh: sections are 1 and 5, not '$2'" >&2 && exit 2 ;;
esac
