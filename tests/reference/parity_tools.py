"""What the scripts that run the program beside transformers have in common."""
import argparse
import os
import pathlib
import subprocess

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf

tf.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # tiny matrices

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "configs/data/bpe2048"
TEXT = ROOT / "configs/data/shakespeare.txt"
ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}
failures = []


def arguments(text):
    parser = argparse.ArgumentParser(description=text)
    for name in ("espalier", "build"):
        parser.add_argument("--" + name, required=True, type=os.path.abspath)
    return parser.parse_args()


def check(ok, what):
    print(("ok    " if ok else "FAIL  ") + what, flush=True)
    if not ok:
        failures.append(what)


def finish():
    print(f"{len(failures)} failures")
    return 1 if failures else 0


def error(a, b):
    """Distance of a from b, relative to the norm of b."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-300))


def llama(**keys):
    base = dict(vocab_size=211, hidden_size=48, intermediate_size=88, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                max_position_embeddings=256, initializer_range=0.1, rms_norm_eps=1e-5, tie_word_embeddings=False)
    return tf.LlamaConfig(**{**base, **keys})


def gpt2(**keys):
    base = dict(vocab_size=197, n_embd=48, n_head=4, n_layer=3, n_positions=128, initializer_range=0.1)
    return tf.GPT2Config(**{**base, **keys})


def bert(**keys):
    base = dict(vocab_size=211, hidden_size=48, intermediate_size=88, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64,
                initializer_range=0.1)
    return tf.BertConfig(**{**base, **keys})


def roberta(**keys):
    return tf.RobertaConfig(**{**bert().to_diff_dict(), "type_vocab_size": 1, "pad_token_id": 1, **keys})


def distilbert(**keys):
    base = dict(vocab_size=211, dim=48, hidden_dim=88, n_layers=3, n_heads=4, max_position_embeddings=64, initializer_range=0.1)
    return tf.DistilBertConfig(**{**base, **keys})


def t5(**keys):
    base = dict(vocab_size=211, d_model=48, d_kv=10, d_ff=88, num_heads=4, num_layers=3, num_decoder_layers=2, initializer_factor=0.5,
                relative_attention_num_buckets=12, relative_attention_max_distance=24, decoder_start_token_id=0)
    return tf.T5Config(**{**base, **keys})


LANGUAGE_MODELS = {"gpt2": tf.GPT2LMHeadModel, "llama": tf.LlamaForCausalLM, "mistral": tf.MistralForCausalLM, "bert": tf.BertForMaskedLM,
                   "t5": tf.T5ForConditionalGeneration}


def make_model(config, folder, kind=None):
    """A model of random weights, norms and biases off their trivial values, saved in folder."""
    model = (kind or LANGUAGE_MODELS[config.model_type])(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(folder)
    return model


def espalier(args, *words, text=None, seconds=120):
    """What the program writes to stdout; its stderr is shown when it fails."""
    done = subprocess.run([args.espalier, *map(str, words)], input=text, capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        raise SystemExit(f"espalier {' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def tokenize(args, lines, tokenizer=TOKENIZER):
    out = espalier(args, "tokenize", tokenizer, text="".join(line + "\n" for line in lines))
    return [[int(word) for word in row.split()] for row in out.splitlines()]
