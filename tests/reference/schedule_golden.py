"""Writes tests/goldens/schedule.json: the learning rate of every update, from transformers' own
schedulers stepped as a trainer steps them, and from equation 3 of Howard & Ruder (2018).

    python tests/reference/schedule_golden.py tests/goldens/schedule.json
"""
import json
import math
import sys

import torch
import transformers
from transformers import optimization as schedules

LR = 3e-4


def stepped(make, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def slanted(total, cut_frac, ratio):
    """p and the rate as in the paper; total * cut_frac must be whole here, or p goes below 0 at the end."""
    cut = math.floor(total * cut_frac)
    rates = []
    for t in range(total):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        rates.append(LR * (1 + p * (ratio - 1)) / ratio)
    return rates


def case(schedule, total, rates, **keys):
    return {"schedule": schedule, "total": total, "lr": LR, **keys, "rates": rates}


def cases():
    for total, warmup in ((40, 0), (40, 7), (1, 0), (3, 5), (25, 25)):
        keys = {"warmup_steps": warmup}
        yield case("constant", total, stepped(lambda o: schedules.get_constant_schedule_with_warmup(o, warmup), total), **keys)
        yield case("linear", total, stepped(lambda o: schedules.get_linear_schedule_with_warmup(o, warmup, total), total), **keys)
        yield case("cosine", total, stepped(lambda o: schedules.get_cosine_schedule_with_warmup(o, warmup, total), total), **keys)
        yield case("inverse_sqrt", total, stepped(lambda o: schedules.get_inverse_sqrt_schedule(o, warmup), total), **keys)
    floor = 0.1
    for total, warmup in ((40, 0), (40, 7)):
        keys = {"warmup_steps": warmup, "min_lr_ratio": floor}
        yield case("linear", total, stepped(lambda o: schedules.get_polynomial_decay_schedule_with_warmup(
            o, warmup, total, lr_end=floor * LR, power=1.0), total), **keys)
        yield case("cosine", total, stepped(lambda o: schedules.get_cosine_with_min_lr_schedule_with_warmup(
            o, warmup, total, min_lr_rate=floor), total), **keys)
    for total, warmup, decay, low in ((40, 0, 0.2, 0.0), (40, 5, 0.25, 0.1), (37, 4, 0.3, 0.0)):
        rates = stepped(lambda o: schedules.get_wsd_schedule(
            o, warmup, math.ceil(decay * total), num_training_steps=total, min_lr_ratio=low), total)
        yield case("wsd", total, rates, warmup_steps=warmup, decay_ratio=decay, min_lr_ratio=low)
    args = transformers.TrainingArguments(output_dir="/nonexistent", warmup_steps=0.15, use_cpu=True)
    warmup = args.get_warmup_steps(33)
    yield case("linear", 33, stepped(lambda o: schedules.get_linear_schedule_with_warmup(o, warmup, 33), 33), warmup_ratio=0.15)
    for total, cut_frac, ratio in ((40, 0.1, 32), (40, 0.25, 32), (20, 0.5, 4)):
        yield case("slanted_triangular", total, slanted(total, cut_frac, ratio), cut_ratio=cut_frac, min_lr_ratio=1 / ratio)


def main():
    golden = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}", "cases": list(cases())}
    with open(sys.argv[1], "w") as out:
        head, rows = golden["made_with"], golden["cases"]
        out.write('{"made_with": %s, "cases": [\n' % json.dumps(head))
        out.write(",\n".join(json.dumps(row) for row in rows) + "\n]}\n")


if __name__ == "__main__":
    main()
