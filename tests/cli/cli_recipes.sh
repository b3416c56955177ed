#!/usr/bin/env bash
# test: tier=short timeout=60
# cli_recipes.sh ESPALIER: every recipe is a valid config, and what it names in configs/ is there.
set -u
espalier=$1
cd "$(dirname "$0")/../.."
failures=0
for recipe in configs/*.yaml; do
    if ! resolved=$("$espalier" config "$recipe"); then
        failures=$((failures + 1))
        continue
    fi
    for path in $(grep -o '"configs/[^"]*"' <<< "$resolved" | tr -d '"'); do
        if [ ! -e "$path" ]; then
            echo "$recipe: $path is not there"
            failures=$((failures + 1))
        fi
    done
done
exit $((failures > 0))
