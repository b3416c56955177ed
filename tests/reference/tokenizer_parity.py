#!/usr/bin/env python3
"""Compares `espalier tokenize` with the package `tokenizers`, text by text: ids of all, offsets of some, and the text of the ids; and pair by
pair (each text with the one before it): ids and token types, whole and cut to several lengths, of which the head or the tail is kept.

    tokenizer_parity.py ESPALIER DATA [--offsets-every N] [--tokenizers NAME,...] [--every N] [--quick]

DATA is a folder with tokenizers/*/tokenizer.json and texts as .jsonl, .jsonl.gz, .json, .csv and .txt anywhere else below it; every string
value and every line is a text. A hostile corpus comes on top. Prints counts; exits with 1 when anything differs.
"""
import argparse
import codecs
import gzip
import itertools
import json
import pathlib
import random
import re
import subprocess
import sys

import tokenizers

NAMES = "gpt2,llama2-32k,llama3,tok512-tinystories,bert-base-uncased,t5"


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def texts_of(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8", errors="replace")
    with opened as file:
        if ".jsonl" in path.suffixes:
            for line in file:
                yield from strings(json.loads(line))
        elif path.suffix == ".json":
            yield from strings(json.load(file))
        else:
            whole = file.read()
            yield from whole.split("\n")
            yield whole


def corpora(data, every):
    for path in sorted(data.rglob("*")):
        inside = path.relative_to(data).parts
        if path.suffix not in (".jsonl", ".gz", ".json", ".csv", ".txt") or inside[0] in ("tokenizers", "models"):
            continue
        texts = (text.encode("utf-8") for text in texts_of(path))
        yield "/".join(inside), itertools.islice(texts, 0, None, every)


def runs():
    for piece in [" ", "\n", "a", "\t", "\u3000", "\u00a0", "é", "\U0001f600", "\u2581", "=", "\r\n", " a", "\u0301", "ab", "<", "<|", "<s", "0"]:
        for length in (2, 3, 17, 1000):
            yield piece * length
    for piece in [" ", "\n", "a", "\u4e00", "\u0301", "x ", "\u2581", "\U0001f468\u200d\U0001f469"]:
        yield piece * (1_000_000 // len(piece.encode("utf-8")))


SPECIALS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|reserved_special_token_17|>", "<0x0A>", "<|endoftext", "[CLS]"]

ALPHABET = (
    [chr(c) for c in range(1, 256)]
    + list("\u0130\u0131\u017f\u212a\u03c2\u03a3\u1e9e\ufb06\ufb01\u00bd\u2460\u0660\u0967\u2028\u2029\u200b\u200c\u200d\u200e\u2060\ufeff\ufffd\u180e\u2581\u3000")
    + ["\u0301", "\u0323", "\u0300\u0301", "e\u0301", "\u1100\u1161\u11a8", "\uac00", "\u0344", "\u0958", "\u2126", "\u1e69", "\u0f73"]
    + ["\U0001f1e9\U0001f1ea", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001d49c", "\U0001f130", "\U000e0041", "\U0010ffff", "\ue000"]
    + ["\u4e2d", "\u3042", "\u0e01\u0e33", "\u0915\u094d\u0937", "\u0627\u0644", "\u05d0\u05b8"]
    + ["'s", "'S", "'LL", "'re", "'\u017f", "  ", "   ", "\n\n", "\r\n", "123", "1234567", " 12", "-", "--", "...", " the", " and", "ing"]
    + SPECIALS
)


def hostile(quick):
    chance = random.Random(7)
    yield from (text.encode("utf-8") for text in runs())
    yield from (f"a{special}{space}b{special} c".encode("utf-8") for special in SPECIALS for space in ("", " ", "  ", "\n", "\u3000"))
    for _ in range(3000 if quick else 20000):
        yield "".join(chance.choices(ALPHABET, k=chance.randint(1, 40))).encode("utf-8")
    for _ in range(1000 if quick else 10000):  # any assigned or unassigned character
        codes = (chance.choice([chance.randrange(1, 0x3000), chance.randrange(1, 0xD800), chance.randrange(0xE000, 0x110000)]) for _ in range(12))
        yield "".join(map(chr, codes)).encode("utf-8")
    for _ in range(1000 if quick else 10000):  # invalid UTF-8
        yield bytes(chance.choice([chance.randrange(1, 256), chance.randrange(0x80, 0x100), 0x61, 0xE2, 0x96]) for _ in range(chance.randint(1, 24)))


def spans_of(text):
    """Text with U+FFFD for what is invalid, and for each character its bytes in the source."""
    bad = []

    def replace(error):
        bad.append((error.start, error.end))
        return "\ufffd", error.end

    codecs.register_error("parity", replace)
    decoded = text.decode("utf-8", "parity")
    spans, at, left = [], 0, iter(bad + [(-1, -1)])
    wrong = next(left)
    for character in decoded:
        end = wrong[1] if at == wrong[0] else at + len(character.encode("utf-8"))
        wrong = next(left) if at == wrong[0] else wrong
        spans.append((at, end))
        at = end
    return decoded, spans


def ours(espalier, folder, payload, *options):
    result = subprocess.run([espalier, "tokenize", folder, "-", *options], input=payload, capture_output=True)
    if result.returncode:
        sys.exit(f"espalier tokenize {folder}: {result.stderr.decode()}")
    return result.stdout


class Comparison:
    def __init__(self, espalier, folder):
        self.espalier, self.folder = espalier, str(folder)
        self.reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.reference.no_truncation()
        self.reference.no_padding()
        self.texts = self.ids = self.offsets = self.decoded = self.pairs = self.wrong = 0

    def differ(self, what, text, mine, theirs):
        self.wrong += 1
        if self.wrong <= 10:
            print(f"  {what} differ for {text[:80]!r}\n    espalier  {str(mine)[:200]}\n    reference {str(theirs)[:200]}")

    def compare_ids(self, texts):
        encodings = self.reference.encode_batch_fast([text.decode("utf-8", "replace") for text in texts])
        lines = ours(self.espalier, self.folder, b"\0".join(texts) + b"\0", "--null").decode().split("\n")[:-1]
        assert len(lines) == len(texts), (len(lines), len(texts))
        for text, line, encoding in zip(texts, lines, encodings):
            theirs = " ".join(map(str, encoding.ids))
            self.ids += len(encoding.ids)
            if line != theirs:
                self.differ("ids", text, line, theirs)
        self.texts += len(texts)
        return lines

    def compare_offsets(self, texts):
        payload = b"\0".join(texts) + b"\0"
        lines = ours(self.espalier, self.folder, payload, "--null", "--offsets").decode().split("\n")[:-1]
        for text, line in zip(texts, lines):
            decoded, spans = spans_of(text)
            begins = [begin for begin, _ in spans] + [len(text)]
            ends = [0] + [end for _, end in spans]
            theirs = []
            for id_, (begin, end) in zip(*(lambda e: (e.ids, e.offsets))(self.reference.encode(decoded))):
                empty = begin == end
                theirs.append(f"{id_}:{begins[begin]}-{begins[begin] if empty else ends[end]}")
            self.offsets += len(theirs)
            if line.split() != theirs:
                self.differ("offsets", text, line, " ".join(theirs))

    def compare_decoding(self, lines):
        for skip in (False, True):
            options = ["--decode", "--null"] + (["--no-special"] if skip else [])
            mine = ours(self.espalier, self.folder, "\n".join(lines).encode() + b"\n", *options).split(b"\0")[:-1]
            theirs = self.reference.decode_batch([[int(i) for i in line.split()] for line in lines], skip_special_tokens=skip)
            self.decoded += len(theirs)
            for line, a, b in zip(lines, mine, theirs):
                if a != b.encode("utf-8"):
                    self.differ("texts", line.encode(), a, b.encode("utf-8"))

    def compare_types(self, payload, encodings, options, shown):
        lines = ours(self.espalier, self.folder, payload, "--null", "--types", *options).decode().split("\n")[:-1]
        assert len(lines) == len(encodings), (len(lines), len(encodings))
        for text, line, encoding in zip(shown, lines, encodings):
            theirs = " ".join(f"{i}/{t}" for i, t in zip(encoding.ids, encoding.type_ids))
            if line != theirs:
                self.differ(f"ids and types {' '.join(options)}", text, line, theirs)

    def compare_pairs(self, texts):
        """Each text with its predecessor, whole and cut. The reference also makes what it cuts off, for pairs a product of both sides: so
        short lengths are tried on short texts alone."""
        for length, keep in ((0, "head"), (5, "head"), (6, "tail"), (17, "head"), (64, "tail"), (128, "head"), (512, "tail")):
            some = [text for text in texts if len(text) < (24 * length or 20000)]
            pairs = list(zip(some, some[1:]))
            if not pairs:
                continue
            options = ["--length", str(length), "--keep", keep]
            if length:
                self.reference.enable_truncation(length, strategy="longest_first", direction="right" if keep == "head" else "left")
                singles = self.reference.encode_batch([text.decode("utf-8", "replace") for text in some])
                self.compare_types(b"\0".join(some) + b"\0", singles, options, some)
            theirs = self.reference.encode_batch([(a.decode("utf-8", "replace"), b.decode("utf-8", "replace")) for a, b in pairs])
            self.compare_types(b"\0".join(part for pair in pairs for part in pair) + b"\0", theirs, ["--pairs"] + options, some)
            self.reference.no_truncation()
            self.pairs += len(pairs)

    def corpus(self, name, texts, every):
        before = self.texts, self.ids, self.offsets, self.wrong
        texts = (re.sub(rb"\0", b"", text) for text in texts)
        while chunk := list(itertools.islice(texts, 4000)):
            lines = self.compare_ids(chunk)
            self.compare_offsets(chunk[::every])
            self.compare_pairs(chunk[::every])
            self.compare_decoding(lines[::every])
        counts = [now - then for now, then in zip((self.texts, self.ids, self.offsets, self.wrong), before)]
        print(f"  {name:40} {counts[0]:8} texts {counts[1]:10} ids {counts[2]:9} offsets {counts[3]:6} differences", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("espalier")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--tokenizers", default=NAMES)
    parser.add_argument("--offsets-every", type=int, default=50)
    parser.add_argument("--every", type=int, help="one text in N of the data; 1, or 97 with --quick")
    parser.add_argument("--quick", action="store_true", help="a part of the hostile corpus; offsets, pairs and decoding of every third text")
    options = parser.parse_args()
    wrong = 0
    for name in options.tokenizers.split(","):
        comparison = Comparison(options.espalier, options.data / "tokenizers" / name)
        print(f"{name}: tokenizers {tokenizers.__version__}")
        comparison.corpus("hostile", hostile(options.quick), 3 if options.quick else 1)
        for corpus, texts in corpora(options.data, options.every or (97 if options.quick else 1)):
            comparison.corpus(corpus, texts, 3 if options.quick else options.offsets_every)
        print(f"{name}: {comparison.texts} texts, {comparison.ids} ids, {comparison.offsets} offsets, {comparison.decoded} decoded, {comparison.pairs} pairs, {comparison.wrong} differences")
        wrong += comparison.wrong
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
