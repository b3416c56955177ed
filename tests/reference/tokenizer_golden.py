#!/usr/bin/env python3
"""Writes tests/goldens/tokenizers/cases.json: small tokenizers that use every supported component, and what the package `tokenizers` makes of
some texts with them: ids with and without special tokens, byte offsets, decoded text.

    tokenizer_golden.py OUT.json BYTE_LEVEL_TOKENIZER.json TEXT

The byte-level model is the alphabet and the first merges of the given tokenizer (configs/data/bpe2048/tokenizer.json). WordPiece and Unigram
are trained on the given text (configs/data/shakespeare.txt).
"""
import base64
import json
import random
import struct
import sys

import tokenizers
from tokenizer_parity import spans_of

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 .,;:!?-_'\"\n▁éèüßİı̣́가각ᄀ½Ωﬁ"
MERGES = ["t h", "th e", "i n", "in g", "a n", "an d", "▁ t", "▁ a", "1 2", "12 3", "l l", "e r"]


def vocabulary(tokens):
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def bpe(tokens, merges, **options):
    plain = dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False)
    return plain | dict(byte_fallback=False, ignore_merges=False, vocab=vocabulary(tokens), merges=merges) | options


def models(byte_level):
    merges = [pair.split(" ") for pair in MERGES]
    plain = ["<unk>", *CHARACTERS, *("".join(pair) for pair in merges)]
    fallback = plain + [f"<0x{b:02X}>" for b in range(256)]
    some = [token for token in fallback if token != "<0xE4>"]
    affixed = plain + [f"##{c}" for c in CHARACTERS] + [f"{c}</w>" for c in CHARACTERS] + [f"##{c}</w>" for c in CHARACTERS]
    source = json.load(open(byte_level))["model"]
    raw_merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in source["merges"][:60]]
    alphabet = [token for token in source["vocab"] if len(token) == 1]
    raw = alphabet + ["".join(pair) for pair in raw_merges]
    return {
        "plain": bpe(plain, merges),
        "legacy": bpe(plain, MERGES, fuse_unk=True),
        "silent": bpe(plain, merges, unk_token=None),
        "fallback": bpe(fallback, merges, byte_fallback=True, fuse_unk=True),
        "partial": bpe(some, merges, byte_fallback=True),
        "whole": bpe(plain + ["the cat", "b▁c"], merges, ignore_merges=True),
        "prefix": bpe(affixed, [["t", "##h"]], continuing_subword_prefix="##"),
        "suffix": bpe(affixed, [], end_of_word_suffix="</w>"),
        "affixes": bpe(affixed, [], continuing_subword_prefix="##", end_of_word_suffix="</w>", byte_fallback=True),
        "bytes": bpe(raw, raw_merges, unk_token=None),
        "whole_bytes": bpe(raw + ["Ġqux", "quÃ©"], raw_merges, unk_token=None, ignore_merges=True),
        "few_bytes": bpe([token for token in raw if token not in ("q", "Ł")], [pair for pair in raw_merges if "q" not in "".join(pair)], unk_token=None),
    }


def trained(model, trainer, normalizer, path):
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace() if normalizer is None else tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.train([path], trainer)
    return json.loads(tokenizer.to_str())["model"]


def encoder_models(path):
    quiet, specials = dict(show_progress=False), ["[UNK]", "[CLS]", "[SEP]", "<0x41>"]
    pieces = tokenizers.trainers.WordPieceTrainer(vocab_size=220, special_tokens=specials, **quiet)
    wordpiece = trained(tokenizers.models.WordPiece(unk_token="[UNK]"), pieces, tokenizers.normalizers.BertNormalizer(), path)
    scored = tokenizers.trainers.UnigramTrainer(vocab_size=220, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", **quiet)
    unigram = trained(tokenizers.models.Unigram(), scored, None, path)
    unigram["vocab"] = [[token, round(score, 4)] for token, score in unigram["vocab"]]
    odd = [["<unk>", 0], ["a", -1], ["b", -2.5], ["ab", -3.5], ["x", -2], ["xx", -4], ["a", -1.25], ["中文", -9], ["th", 3], ["the", 2.5], ["t", -1], ["he", 1], ["▁", -1]]
    letters = [[letter, -4 - i / 8] for i, letter in enumerate("abcdehinorstyü ▁")]
    words = vocabulary(["[UNK]", "[CLS]", "[SEP]", *"abcdehinorsty#", "##e", "the", "to", "be", "中", "é"])
    made = dict(type="Unigram", unk_id=0, byte_fallback=False, vocab=odd)
    return {
        "wordpiece": wordpiece,
        "short_words": wordpiece | dict(max_input_chars_per_word=5, continuing_subword_prefix="", unk_token="[SEP]", vocab=words),
        "no_pieces": wordpiece | dict(continuing_subword_prefix="@@", vocab=words),
        "unigram": unigram,
        "odd_scores": made,
        "some_bytes": made | dict(byte_fallback=True, vocab=odd[:1] + letters + [[f"<0x{b:02X}>", -20] for b in range(256) if b != 0xE4]),
    }


def place(units, bases, position, children):
    """Puts the children of the unit at `position` of a double array; a number under 0 is the unit's value."""
    base = next(b for b in range(1, 1 << 20) if b not in bases and not any(b ^ c in units for c in children))
    bases.add(base)
    units[position] = units[position] | (position ^ base) << 10 | (0 in children) << 8
    units.update({base ^ c: c for c in children})
    for c, below in children.items():
        if c == 0:
            units[base] = below
        else:
            place(units, bases, base ^ c, below)


def charmap(pairs):
    """A precompiled_charsmap as sentencepiece writes it: size of the trie, trie, texts."""
    root, texts = {}, b""
    for source, target in pairs.items():
        node = root
        for byte in source.encode("utf-8"):
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += target.encode("utf-8") + b"\0"
    units = {0: 0}
    place(units, set(), 0, root)
    trie = struct.pack(f"<{max(units) + 256}I", *(units.get(i, 0) for i in range(max(units) + 256)))
    return dict(type="Precompiled", precompiled_charsmap=base64.b64encode(struct.pack("<I", len(trie)) + trie + texts).decode())


def added(vocab, size):
    rows = [
        ("<unk>", {}), ("<s>", dict(lstrip=True)), ("</s>", dict(rstrip=True)), ("[w]", dict(single_word=True)), ("<s", dict(special=False)),
        ("Day", dict(normalized=True, special=False)), ("Zoo bar", dict(normalized=True, special=False, lstrip=True, rstrip=True)),
        ("the", dict(normalized=True, special=False, single_word=True)),
    ]
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokens, free = [], size
    for content, flags in rows:
        tokens.append(dict(id=vocab.get(content, free), content=content) | plain | flags)
        free += content not in vocab
    return tokens


def replace(pattern, content, kind="String"):
    return dict(type="Replace", pattern={kind: pattern}, content=content)


def split(pattern, behavior, invert=False, kind="Regex"):
    return dict(type="Split", pattern={kind: pattern}, behavior=behavior, invert=invert)


def byte_level(**options):
    return dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True) | options


def sequence(key, *rows):
    return {"type": "Sequence", key: list(rows)}


def metaspace(scheme, split_too=True):
    return dict(type="Metaspace", replacement="▁", prepend_scheme=scheme, split=split_too)


def template(*pieces, **ids):
    single = [{"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p, "type_id": 0}} for p in pieces]
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    special = {name: dict(id=name, ids=values, tokens=[name] * len(values)) for name, values in ids.items()}
    return dict(type="TemplateProcessing", single=single, pair=pair, special_tokens=special)


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

NORMALIZERS = {
    **{form: dict(type=form) for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "ByteLevel")},
    "strip_left": dict(type="Strip", strip_left=True, strip_right=False),
    "strip_right": dict(type="Strip", strip_left=False, strip_right=True),
    "prepend": dict(type="Prepend", prepend="▁"),
    "replace": replace("a", "bb"),
    "replace_by_nothing": replace("ll", ""),
    "replace_regex": replace(r"\s+", "_", "Regex"),
    "llama2": sequence("normalizers", dict(type="Prepend", prepend="▁"), replace(" ", "▁")),
    "llama2_spaces": sequence("normalizers", replace(r"\A +| +\z", "", "Regex"), replace(" {2,}", " ", "Regex"), dict(type="Prepend", prepend="▁")),
    "nested": sequence("normalizers", dict(type="NFD"), sequence("normalizers", replace(r"\p{Mn}", "", "Regex"), dict(type="Lowercase"))),
    "empty": sequence("normalizers"),
}

PRETOKENIZERS = {
    **{f"split_{b}": split(" ", b, kind="String") for b in BEHAVIORS},
    **{f"words_{b}_inverted": split(r"\w+|[^\w\s]+", b, True) for b in BEHAVIORS},
    "llama3": split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", "Isolated"),
    "possessive": split(r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$", "Isolated"),
    "boundaries": split(r"\b", "Isolated"),
    "dot_all": split(r"(?m:a.)|\h+$|\p{^Letter}{,2}", "Isolated"),
    "empty_matches": split("x*", "Isolated"),
    "unicode_escape": split(r"[\u00e0-\u00ff]|\u2581", "Isolated"),
    **{f"metaspace_{scheme}_{s}": metaspace(scheme, s) for scheme in ("always", "first", "never") for s in (True, False)},
    "metaspace_old": dict(type="Metaspace", replacement="▁", add_prefix_space=True),
    "digits": dict(type="Digits", individual_digits=True),
    "numbers": dict(type="Digits", individual_digits=False),
    "whitespace": dict(type="Whitespace"),
    "whitespace_split": dict(type="WhitespaceSplit"),
    **{f"punctuation_{b}": dict(type="Punctuation", behavior=b) for b in BEHAVIORS},
    "chain": sequence("pretokenizers", dict(type="Whitespace"), sequence("pretokenizers", dict(type="Digits", individual_digits=True), metaspace("first"))),
}

BYTE_LEVELS = {
    "gpt2": byte_level(),
    "prefix_space": byte_level(add_prefix_space=True),
    "no_regex": byte_level(use_regex=False),
    "digits": sequence("pretokenizers", dict(type="Digits", individual_digits=True), byte_level(add_prefix_space=True)),
    "not_last": sequence("pretokenizers", byte_level(), split("Ġ", "MergedWithNext", kind="String")),
}

POSTS = {
    "trim": byte_level(add_prefix_space=False),
    "trim_but_one": byte_level(add_prefix_space=True),
    "no_trim": byte_level(trim_offsets=False),
    "template": template("X", "A", "X", "A", X=[1, 2]),
    "both": sequence("processors", byte_level(add_prefix_space=False), template("X", "A", X=[3])),
    "roberta": dict(type="RobertaProcessing", sep=["</s>", 2], cls=["<s>", 1], trim_offsets=True, add_prefix_space=True),
    "bert": dict(type="BertProcessing", sep=["</s>", 2], cls=["<s>", 1]),
}

DECODERS = {
    "none": None,
    "metaspace": metaspace("always"),
    "metaspace_never": metaspace("never"),
    "llama2": sequence("decoders", replace("▁", " "), dict(type="ByteFallback"), dict(type="Fuse"), dict(type="Strip", content=" ", start=1, stop=0)),
    "strip": dict(type="Strip", content="a", start=2, stop=0),
    "replace": replace("[aeiou]", "*", "Regex"),
    "bytes": byte_level(),
}

TEXTS = [
    "", "a", "  ", "  the cat  and Day the<s>  x</s>   y [w] a[w]b [w]", "day Day DAY zoo bar Zoo bar  Zoo bar  x", "Ｆｕ ﬁ ½ Ω İst ]½ x½",
    "e\u0301\u0323 a\u0323\u0301 \u1100\u1161\u11a8 각 \u0344 \u0958", "a\n\nb\r\n c\td  ", "12345 1,234.56 ½²", "it's I'LL THE The the.the the", "▁a ▁▁b a▁ b▁c",
    "中文 and 日本 qux qué Ł", "\u0301\u0301a", "\u3000a\u00a0b\u2003c\u200db", "ab 中x中中 b😀\U0001f468\u200d\U0001f469", "xx aaxxb\u017fsS's'ſ", "nul \0 here",
]
BROKEN = [b"a\xffb", b"\xe2\x96 x\xe2\x96\x81\xc3", b"\xf0\x9f\x98 \xed\xa0\x80\xc0\xaf"]


def cases():
    for name, row in NORMALIZERS.items():
        yield f"normalizer {name}", "plain", row, None, None, DECODERS["metaspace"]
        yield f"normalizer {name}, bytes", "bytes", row, byte_level(), None, byte_level()
    for name, row in PRETOKENIZERS.items():
        yield f"pre-tokenizer {name}", "plain", None, row, None, None
        yield f"pre-tokenizer {name} after Strip", "legacy", sequence("normalizers", dict(type="Strip", strip_left=True, strip_right=True)), row, None, DECODERS["metaspace"]
    for name, row in BYTE_LEVELS.items():
        for post_name, post in POSTS.items():
            yield f"byte level {name}, {post_name}", "bytes", None, row, post, byte_level()
    for model in ("whole_bytes", "few_bytes"):
        yield f"model {model}", model, None, byte_level(), POSTS["trim"], byte_level()
    for model in ("plain", "legacy", "silent", "fallback", "partial", "whole", "prefix", "suffix", "affixes"):
        yield f"model {model}, words", model, None, PRETOKENIZERS["whitespace"], POSTS["bert"], DECODERS["llama2"]
        yield f"model {model}, llama2", model, NORMALIZERS["llama2"], None, POSTS["template"], DECODERS["llama2"]
        yield f"model {model}, metaspace", model, None, metaspace("first", False), None, DECODERS["metaspace_never"]
    for name, row in DECODERS.items():
        yield f"decoder {name}", "fallback", None, metaspace("always"), None, row


def bert(**options):
    return dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True) | options


ENCODER_NORMALIZERS = {
    "bert": bert(),
    "bert_cased": bert(lowercase=False),
    "bert_accents": bert(strip_accents=False),
    "bert_only_accents": bert(strip_accents=True, lowercase=False, clean_text=False, handle_chinese_chars=False),
    "nmt": dict(type="Nmt"),
    "precompiled": charmap({
        "\n": " ", "\t": " ", "\r": " ", "\u3000": " ", "\u00a0": " ", "\u200b": "", "\u200d": "", "\u0301": "", "½": "1/2", "ﬁ": "fi", "Ω": "Ω", "Ｆ": "F",
        "ｕ": "u", "e\u0301": "é", "e\u0301\u0323": "ẹ́", "a\u0323": "ạ", "ſ": "s", "xx": "y", "中": "middle", "가": "가", "文": "",
    }),
}
T5 = sequence("normalizers", ENCODER_NORMALIZERS["precompiled"], dict(type="Strip", strip_left=False, strip_right=True), replace(" {2,}", "▁", "Regex"))

ENCODER_TEXTS = TEXTS[3:] + [
    "To be, or not to be: that is the question.", "I don't know; do not ask! It's the king's 'tis we've they're I'm ' ok", "naïve CAFÉ Ünïcödé señor", "speak speaks speaking unspeakable",
    "a\u0000b\u0007c\ufffdd\u200be\u00adf\u0085g\u180eh", "a" * 101 + " " + "b" * 100, "abxxx thethe <unk>x中文<unk> xax", "½\u0301½\u0323 \u200bab\u200b\r\n \u0301é", "$5 + 3^2=~`|x|` «a» ¿b? c۔",
]


def encoder_cases():
    pieces = {clean: dict(type="WordPiece", prefix="##", cleanup=clean) for clean in (True, False)}
    words, marks, ends = dict(type="BertPreTokenizer"), metaspace("always"), template("A", "</s>", **{"</s>": [1]})
    for name, row in ENCODER_NORMALIZERS.items():
        yield f"normalizer {name}", "plain", row, None, None, DECODERS["metaspace"]
    yield "pre-tokenizer bert", "plain", None, words, None, None
    yield "model wordpiece, bert", "wordpiece", bert(), words, template("[CLS]", "A", "[SEP]", **{"[CLS]": [1], "[SEP]": [2]}), pieces[True]
    yield "model wordpiece, cased", "wordpiece", bert(lowercase=False), words, dict(type="BertProcessing", sep=["[SEP]", 2], cls=["[CLS]", 1]), pieces[False]
    yield "model wordpiece, lines", "wordpiece", None, None, None, pieces[True]
    yield "model short_words", "short_words", bert(), words, None, pieces[True] | dict(prefix="")
    yield "model no_pieces", "no_pieces", bert(), words, None, pieces[True] | dict(prefix="e")
    yield "model unigram, t5", "unigram", T5, marks, ends, marks
    yield "model unigram, lines", "unigram", None, None, ends, None
    yield "model unigram, first", "unigram", dict(type="Nmt"), metaspace("first", False), None, metaspace("first")
    yield "model odd_scores", "odd_scores", None, None, None, marks
    yield "model some_bytes", "some_bytes", None, marks, ends, DECODERS["llama2"]


def answer(reference, text):
    decoded, spans = spans_of(text)
    begins, ends = [begin for begin, _ in spans] + [len(text)], [0] + [end for _, end in spans]
    encoding = reference.encode(decoded)
    offsets = [[begins[b], begins[b] if b == e else ends[e]] for b, e in encoding.offsets]
    plain = reference.encode(decoded, add_special_tokens=False).ids
    texts = [reference.decode(encoding.ids, skip_special_tokens=skip) for skip in (False, True)]
    return dict(hex=text.hex(), ids=encoding.ids, plain=plain, offsets=[place for pair in offsets for place in pair], decoded=texts[0], skipped=texts[1])


def main():
    made, rows = models(sys.argv[2]) | encoder_models(sys.argv[3]), []
    chance = random.Random(11)
    for (name, model, normalizer, pretokenizer, post, decoder), known in [(case, TEXTS) for case in cases()] + [(case, ENCODER_TEXTS) for case in encoder_cases()]:
        vocab = made[model]["vocab"]
        vocab = vocab if isinstance(vocab, dict) else {token: i for i, (token, _) in enumerate(vocab)}
        parts = dict(normalizer=normalizer, pre_tokenizer=pretokenizer, post_processor=post, decoder=decoder, added_tokens=added(vocab, len(made[model]["vocab"])))
        reference = tokenizers.Tokenizer.from_str(json.dumps(parts | dict(version="1.0", truncation=None, padding=None, model=made[model])))
        texts = [text.encode("utf-8") for text in chance.sample(known, 7 if known is TEXTS else 3)] + chance.sample(BROKEN, 1)
        rows.append(dict(name=name, model=model) | parts | dict(texts=[answer(reference, text) for text in texts]))
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        source = f"tests/reference/tokenizer_golden.py with tokenizers {tokenizers.__version__}"
        out.write(json.dumps(dict(source=source, models=made), ensure_ascii=False, separators=(",", ":"))[:-1] + ',"cases":[\n')
        out.write(",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]}\n")
    print(f"{len(rows)} tokenizers, {sum(len(row['texts']) for row in rows)} texts")


if __name__ == "__main__":
    main()
