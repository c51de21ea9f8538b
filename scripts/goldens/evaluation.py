"""Goldens of F1 and the statistics (METHOD.md section 4): scikit-learn, statsmodels and scipy on seeded random outcomes."""
import itertools
import math
import random

import numpy
from common import ROOT, save_json
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, precision_recall_fscore_support
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

OUT = ROOT / "crates/evaluation/tests/fixtures/statistics.json"
CLASSES = ["refused", "answered", "unknown"]
RESAMPLES = 400_000


def wilson():
    """Wilson intervals at 95 %."""
    counts = [(0, 10), (1, 10), (5, 10), (10, 10), (81, 263), (1, 700), (233, 700), (700, 700)]
    return [{"k": k, "n": n, "interval": list(map(float, proportion_confint(k, n, method="wilson")))} for k, n in counts]


def mcnemars():
    """Exact p-values of left-only and right-only counts; statsmodels and scipy agree."""
    out = []
    for b, c in [(0, 0), (1, 0), (3, 3), (4, 1), (2, 9), (0, 12), (30, 11), (60, 61), (150, 100), (700, 560)]:
        p = float(mcnemar([[5, b], [c, 7]], exact=True).pvalue)
        assert b + c == 0 or abs(p - binomtest(b, b + c, 0.5).pvalue) < 1e-12
        out.append({"left_only": b, "right_only": c, "p": min(p, 1.0)})
    return out


def kappas(rng):
    """Two judges, the second copying the first with a given chance."""
    out = []
    for n, copy in [(6, 0.5), (40, 0.0), (100, 0.8), (700, 0.95)]:
        left = [rng.choices(CLASSES, [5, 3, 1])[0] for _ in range(n)]
        right = [v if rng.random() < copy else rng.choice(CLASSES) for v in left]
        out.append({"left": left, "right": right, "kappa": float(cohen_kappa_score(left, right, labels=CLASSES)),
                    "table": confusion_matrix(left, right, labels=CLASSES).tolist()})
    return out


def f1s(rng):
    """F1 of class 1; an answer without a label is a third predicted class to scikit-learn. Counts: rows truth, columns answer."""
    out = []
    for n, right, none in [(8, 0.5, 0.2), (60, 0.8, 0.0), (200, 0.7, 0.1), (5, 0.0, 1.0), (30, 0.0, 0.0)]:
        truth = [rng.choice("01") for _ in range(n)]
        answer = ["none" if rng.random() < none else t if rng.random() < right else str(1 - int(t)) for t in truth]
        precision, recall, f1, _ = precision_recall_fscore_support(truth, answer, labels=["1"], zero_division=0)
        out.append({"reference": truth, "response": answer, "f1": float(f1[0]), "precision": float(precision[0]),
                    "recall": float(recall[0]), "accuracy": float(accuracy_score(truth, answer)),
                    "counts": confusion_matrix(truth, answer, labels=["1", "0", "none"]).tolist()[:2]})
    return out


def spreads(rng):
    """Mean and sample standard deviation."""
    rows = [[rng.random() for _ in range(n)] for n in (2, 3, 5, 40)]
    return [{"values": row, "mean": float(numpy.mean(row)), "sd": float(numpy.std(row, ddof=1))} for row in rows]


def bootstraps(rng):
    """Percentile intervals by scipy with 400,000 resamples, and how far 10,000 resamples may be off: five standard errors
    of a 2.5 % quantile, from the figure's standard error s and the normal density there, 0.0584 / s."""
    out = []
    for n in (30, 200, 700):
        left = [float(rng.random() < 0.35) for _ in range(n)]
        right = [v if rng.random() < 0.8 else round(rng.random(), 3) for v in left]
        row = {"left": left, "right": right}
        for name, values in [("mean", left), ("difference", [a - b for a, b in zip(left, right)])]:
            found = bootstrap((values,), numpy.mean, n_resamples=RESAMPLES, batch=2000, method="percentile", rng=7)
            deviation = math.sqrt(0.025 * 0.975 / 10_000) / (0.0584 / float(numpy.std(values) / math.sqrt(n)))
            step = 1 / n if name == "mean" else 0.0  # means of zeros and ones lie on a grid
            row[name] = {"value": float(numpy.mean(values)), "interval": list(map(float, found.confidence_interval)),
                         "tolerance": 5 * deviation + step}
        out.append(row)
    return out


def enumerated():
    """All 4^4 resamples of four values, equally likely: the interval itself, without Monte Carlo."""
    left, right = [0.0, 1.0, 3.0, 7.0], [0.5, 0.0, 5.0, 1.0]
    values = [a - b for a, b in zip(left, right)]
    figures = sorted(sum(drawn) / 4 for drawn in itertools.product(values, repeat=4))
    ends = []
    for q in (0.025, 0.975):
        low, end, high = (figures[round(x * 255)] for x in (q - 0.007, q, q + 0.007))
        assert low == end == high, "10,000 draws may end on a neighbouring value; choose other values"
        ends.append(end)
    return {"left": left, "right": right, "interval": ends}


def main():
    """Writes crates/evaluation/tests/fixtures/statistics.json."""
    rng = random.Random(41)
    save_json({"wilson": wilson(), "mcnemar": mcnemars(), "kappa": kappas(rng), "f1": f1s(rng), "spread": spreads(rng),
               "bootstrap": bootstraps(rng), "enumerated": enumerated()}, OUT)
    print(f"  {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
