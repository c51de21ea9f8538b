"""Goldens of direction, gradient, selection, restore and rollback (paper sections 2 and 3), tiny models, token ids."""
import importlib.util
import math
import shutil

import torch
from common import ROOT, TINY, TUNED, load_tiny, random_rows, save, save_json
import reference_recovery as ref

DIRECTION = ROOT / "crates/direction/tests/fixtures"
RECOVERY = ROOT / "crates/recovery/tests/fixtures"
RECOVER_PY = ROOT.parent / "shared/reference/recover.py"
LAYER, RATE, STEPS, BATCH, ROLLBACK = 2, 0.01, 6, 5, 0.2
HARM = random_rows(47, [6, 9, 4, 12, 7, 7, 10, 5, 8, 11, 6, 9])
TASK = random_rows(48, [8, 5, 10, 6, 7, 9, 4])
LEAST_MARGIN = 2e-5


def inputs():
    """Padded batches of both prompt sets."""
    return ref.left_padded(HARM, BATCH), ref.left_padded(TASK, BATCH)


def one_run(rollback, exact, dtype):
    """A run on fresh copies of both models."""
    aligned, tuned = load_tiny(TINY, dtype), load_tiny(TUNED, dtype)
    settings = ref.Settings(layer=LAYER, rate=RATE, steps=STEPS, rollback=ROLLBACK if rollback else None, exact=exact)
    return ref.recover(aligned, tuned, *inputs(), settings), tuned


def check_against_recover_py(run, tuned, rollback):
    """The same run through the functions of recover.py: equal trace, equal weights."""
    spec = importlib.util.spec_from_file_location("recover", RECOVER_PY)
    r = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(r)
    harm, task = inputs()
    aligned, theirs = load_tiny(TINY), load_tiny(TUNED)
    parameters = sum(p.numel() for n, p in aligned.named_parameters() if ".layers." in n)
    aligned, theirs = r.truncate(aligned, LAYER), r.truncate(theirs, LAYER)
    d, target = r.direction(aligned, harm), {n: p.data.clone() for n, p in r.layer_weights(aligned).items()}
    origin = {n: p.data.clone() for n, p in r.layer_weights(theirs).items()}
    task_d, weights = r.direction(theirs, task), r.layer_weights(theirs)
    for row in run.trace:
        loss = r.accumulate(theirs, harm, d)
        done, threshold, count = r.restore(weights, target, None, lambda _: math.ceil(parameters * RATE))
        assert abs(loss - row["loss"]) < 1e-6 and count == row["restored"], (loss, count, row)
        assert abs(threshold / row["threshold"] - 1) < 1e-4, (threshold, row)
        if rollback:
            theirs.zero_grad()
            r.accumulate(theirs, task, task_d)
            _, _, back = r.restore(weights, origin, done, lambda m: math.ceil(m * ROLLBACK))
            theirs.zero_grad()
            assert back == row["rolled_back"], (back, row)
        assert sum(int((p.data == target[n]).sum()) for n, p in weights.items()) == row["equal"]
    mine = dict(ref.region(tuned, LAYER))
    assert all(torch.equal(p.data, mine["model.layers." + n].data) for n, p in weights.items())


def write_direction():
    """Directions, loss and the gradient of step 0."""
    aligned, tuned, (harm, task) = load_tiny(TINY), load_tiny(TUNED), inputs()
    params = ref.region(tuned, LAYER)
    harmful, task_direction = ref.mean_direction(aligned, harm, LAYER), ref.mean_direction(tuned, task, LAYER)
    loss, gradient = ref.loss_and_gradient(tuned, harm, harmful, LAYER, params)
    out = {"harmful_direction": harmful, "task_direction": task_direction}
    out |= {f"gradient.{n}": g for n, g in ref.unflatten(params, gradient).items()}
    save(out, DIRECTION / "expected.safetensors")
    save_json({"layer": LAYER, "batch": BATCH, "loss": loss, "recovery_rows": HARM, "task_rows": TASK}, DIRECTION / "rows.json")
    print(f"  step 0: loss {loss:.6f}, gradient norm {float(gradient.norm()):.4f}")


def main():
    """Writes the fixtures of `direction` and `recovery`."""
    shutil.rmtree(DIRECTION, ignore_errors=True)
    write_direction()
    masks, runs = {}, {}
    for name, rollback, exact in (("released", False, False), ("released_rollback", True, False),
                                  ("exact", False, True), ("exact_rollback", True, True)):
        run, tuned = one_run(rollback, exact, torch.float32)
        wide, _ = one_run(rollback, exact, torch.float64)
        print(f"  {name}: restored {[t['restored'] for t in run.trace]} equal {[t['equal'] for t in run.trace]} "
              f"loss {run.trace[0]['loss']:.4f} -> {run.trace[-1]['loss']:.4f}, smallest margin {run.margin:.1e}")
        assert run.margin > LEAST_MARGIN and all(torch.equal(a, b) for a, b in zip(run.at_aligned, wide.at_aligned)), \
            f"{name}: the choice hangs on rounding (margin {run.margin}); change a seed"
        if RECOVER_PY.exists() and not exact:
            check_against_recover_py(run, tuned, rollback)
            print(f"  {name}: agrees with recover.py")
        params = ref.region(tuned, LAYER)
        for step in (1, STEPS):
            for n, mask in ref.unflatten(params, run.at_aligned[step - 1]).items():
                masks[f"{name}.{step}.{n}"] = mask.to(torch.uint8)
        runs[name] = {"rollback": ROLLBACK if rollback else None, "exact": exact, "trace": run.trace}
    save(masks, RECOVERY / "masks.safetensors")
    save_json({"layer": LAYER, "rate": RATE, "batch": BATCH, "steps": STEPS, "runs": runs}, RECOVERY / "expected.json")


if __name__ == "__main__":
    main()
