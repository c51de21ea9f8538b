"""An independent PyTorch reference of strong recovery (../shared/design/strong-recovery.md), on token ids.

A row is {"ids": [...], "start": n}: the answer is ids[n:], n >= 1, and each of its tokens is predicted from the position before it.
  H  mean over the answer tokens of all harmful rows (tokens count alike, not rows) of KL(aligned || theta) = sum_v p_v (log p_v - log q_v),
     p the aligned model's next-token distribution, q that of theta (natural logarithm, no temperature)
  R  the same on the harmless rows; p is the aligned or the fine-tuned model's (`reference`)
  T  the same on the task rows; p is the fine-tuned model's
  merit = max(0, H - enough) + mu R + penalty T, all on the held-out rows; smaller is better

Region: all weights of all blocks whose name has no "norm" (biases are in), with `all_tensors` also every other tensor that differs between
the models, as ONE flat vector, block by block, q k v o gate up down, a bias behind its weight, the others where the model has them. hidden = all parameters of the blocks, norms included. theta starts as the fine-tuned model.

A round
1. g = gradient of H + mu R + lambda T by theta, on this round's training rows (each term a mean over its own answer tokens); from the
   second round on (1 - momentum) times it plus momentum times the g of the round before.
2. Each weight of the region has one flip: towards the aligned value if it holds the fine-tuned one, and back. Its worth is
   s_i = -g_i d_i / (c_i + mean of c), d_i = other_i - theta_i and c_i = F_i d_i^2 / 2. Candidates: d_i != 0 (as float32 values) and s_i > 0.
   Order: s descending, ties by flat index.
   F, the diagonal of the Fisher information of H + mu R + lambda T at the fine-tuned model, is estimated once, before the first round: of
   each term's training rows, in 16 chunks (of ceil(rows / 16) rows), the gradient of -log q(y) summed over the chunk's answer tokens,
   squared, summed over the chunks, divided by the term's answer tokens and times its weight. The y of the term's i-th answer token is the
   first of the vocabulary up to which q sums to more than u(i), the number-th of a seed's numbers by SplitMix64.
3. A trial with k flips the first k candidates. k is first cut to the number of candidates; of those that restore, i.e. do not give back
   a weight that holds the aligned value, the last are left out until at most ceil(cap hidden) weights of the region are restored. No
   flip is no trial.
   When a round ends with that many restored and a held-out H above max_harmful, cap is doubled, to max_cap at most, and `rounds` more
   rounds may follow from there; not when it is max_cap.
4. The first k is ceil(start hidden), doubled until there is a flip or no candidate is left. If that trial's merit is below the merit at the round's start, k (as cut to the candidates) is
   doubled while the new trial's merit is below the best trial's so far; the first that is not ends the search, as does one that has no
   more flips. Otherwise k is halved (rounded down) until a trial's merit is below that at the round's start, which ends the search, or
   k is below the first over FEWEST, or there is no flip.
5. The best trial is applied if its merit is below the one at the start; else theta stays. "Below" is strict.
Stop: after `rounds` rounds (see 3), or, once the held-out H is at most max_harmful, after two rounds in succession that lowered the merit by less
than tolerance x (H + mu R at that round's start, held-out), a round that applies nothing included. The answer is theta as it then is.

The logits are lm_head of the last hidden state: families that cap them (Gemma 2) are not covered. goldens/strong.py runs this in float64
on the tiny models, parity_strong.py in float32 on real ones.
"""
import math
from dataclasses import asdict, dataclass, field

import torch


@dataclass
class Settings:
    """Constants of a run; the names are those of the golden's JSON."""
    mu: float = 1.0
    task_weight: float = 2.0  # lambda, in the gradient
    penalty: float = 5.0  # of T, in the merit
    enough: float = 0.0
    max_harmful: float = 0.05
    momentum: float = 0.0
    reference: str = "aligned"  # of R: aligned or fine_tuned
    start: float = 0.001
    cap: float = 0.04
    max_cap: float = 0.5
    seed: int = 0  # of the tokens that F is of
    tolerance: float = 0.02
    rounds: int = 12
    all_tensors: bool = False
    batch: int = 8  # rows per forward pass; no figure depends on it


FEWEST = 32  # the first k over this is the least k that is tried
DRAWS = 16  # chunks of rows whose squared gradients F is made of
MASK = 2**64 - 1


def derived_seed(seed, number):
    """The finaliser of SplitMix64."""
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def uniform(seed, number):
    """The number-th of a seed's numbers from 0 up to 1."""
    return (derived_seed(seed, number) >> 11) / 2**53


def region(model, other=None):
    """Names and parameters of all blocks without norms; with another model also those that differ from its own."""
    own = dict(other.named_parameters()) if other is not None else {}
    differs = lambda n, p: n in own and own[n].shape == p.shape and not torch.equal(own[n], p)
    return [(n, p) for n, p in model.named_parameters() if n.startswith("model.layers.") and "norm" not in n or differs(n, p)]


def hidden_parameters(model):
    """Parameters of all blocks, norms included."""
    return sum(p.numel() for n, p in model.named_parameters() if n.startswith("model.layers."))


def flat(params):
    """One vector of all region weights (a copy)."""
    return torch.cat([p.detach().reshape(-1) for _, p in params])


def write(params, vector):
    """Inverse of `flat`."""
    for (_, p), part in zip(params, vector.split([p.numel() for _, p in params])):
        p.data.copy_(part.reshape(p.shape))


def by_name(params, index):
    """Ascending flat indices of the region -> {name: ascending indices of that tensor}."""
    out, at = {}, 0
    for n, p in params:
        inside = index[(index >= at) & (index < at + p.numel())] - at
        if len(inside):
            out[n] = inside
        at += p.numel()
    return out


def answers(model, rows):
    """Logits [tokens, vocabulary] before each answer token of the rows, and the tokens; rows are padded on the right."""
    width = max(len(r["ids"]) for r in rows)
    pad = lambda values: torch.tensor([v + [0] * (width - len(v)) for v in values])
    ids, present = pad([r["ids"] for r in rows]), pad([[1] * len(r["ids"]) for r in rows])
    answer = pad([[int(i >= r["start"]) for i in range(len(r["ids"]))] for r in rows]).bool()
    hidden = model.model(input_ids=ids, attention_mask=present, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, :-1][answer[:, 1:]]), ids[:, 1:][answer[:, 1:]]


class Term:
    """H, R or T on fixed rows: a mean over their answer tokens."""

    def __init__(self, rows, batch, teacher=None):
        """`teacher`: the model whose distribution the KL is from; without one the term is the negative log-likelihood."""
        self.batches = [rows[i:i + batch] for i in range(0, len(rows), batch)]
        self.tokens = sum(len(r["ids"]) - r["start"] for r in rows)
        self.taught = None
        if teacher is not None:
            with torch.no_grad():
                self.taught = [answers(teacher, b)[0].log_softmax(-1) for b in self.batches]

    def parts(self, model):
        """The batches' shares of the mean, one after the other, so that one graph is held at a time."""
        for i, batch in enumerate(self.batches):
            logits, tokens = answers(model, batch)
            own = logits.log_softmax(-1)
            if self.taught is None:
                total = -own.gather(1, tokens[:, None]).sum()
            else:
                total = (self.taught[i].exp() * (self.taught[i] - own)).sum()
            yield total / self.tokens

    def value(self, model):
        """The mean."""
        with torch.no_grad():
            return sum(part.item() for part in self.parts(model))

    def add_gradient(self, model, params, weight, into):
        """Adds weight x gradient to the flat vector `into`; the mean."""
        total = 0.0
        for part in self.parts(model):
            gradients = torch.autograd.grad(part, [p for _, p in params])
            into.add_(torch.cat([g.reshape(-1) for g in gradients]), alpha=weight)
            total += part.item()
        return total

    def add_fisher(self, model, params, weight, seed, into):
        """Adds weight x the diagonal of the Fisher information, as above, to the flat vector `into`; the least distance of a draw from
        falling on another token."""
        rows, number, margin = [row for batch in self.batches for row in batch], 0, 1.0
        size = -(-len(rows) // DRAWS)
        for chunk in (rows[i:i + size] for i in range(0, len(rows), size)):
            logits, tokens = answers(model, chunk)
            u = torch.tensor([uniform(seed, number + i) for i in range(len(tokens))], dtype=torch.float64)
            number += len(tokens)
            sums = logits.detach().double().softmax(-1).cumsum(-1)
            margin = min(margin, float((sums - u[:, None]).abs().min()))
            drawn = (sums <= u[:, None]).sum(-1).clamp(max=sums.shape[1] - 1)
            loss = -logits.log_softmax(-1).gather(1, drawn[:, None]).sum()
            gradients = torch.autograd.grad(loss, [p for _, p in params])
            into.add_(torch.cat([g.reshape(-1) for g in gradients]) ** 2, alpha=weight / self.tokens)
        return margin


@dataclass
class Measured:
    """The held-out figures of one set of weights."""
    harm: float
    harmless: float
    task: float
    merit: float


@dataclass
class Round:
    """One round: the figures at its start, the trials in order ({k, restored, harm, harmless, task, merit}), what was applied."""
    start: Measured
    candidates: int
    trials: list = field(default_factory=list)
    flipped: torch.Tensor = None  # ascending flat indices
    gradient: torch.Tensor = None  # dropped unless asked for
    margin: float = math.inf  # smallest relative gap of s at the border of a trial
    merit_margin: float = math.inf  # smallest relative gap of two merits that were compared


class Strong:
    """A run; `train` and `held` are {"harmful", "harmless", "task"} -> rows."""

    def __init__(self, aligned, fine_tuned, train, held, settings):
        self.s, self.model, self.train, self.mean = settings, fine_tuned, train, None
        aligned.model.embed_tokens.padding_idx = fine_tuned.model.embed_tokens.padding_idx = None  # which would have no gradient
        both = settings.all_tensors
        self.params = region(fine_tuned, aligned if both else None)
        self.aligned = flat(region(aligned, fine_tuned if both else None))
        self.tuned, self.theta = flat(self.params), flat(self.params)
        hidden = hidden_parameters(aligned)
        self.first, self.cap = math.ceil(settings.start * hidden), math.ceil(settings.cap * hidden)
        self.hidden, self.share, self.last = hidden, settings.cap, settings.rounds
        # The teachers' distributions are taken now: later the fine-tuned model holds theta.
        teacher = aligned if settings.reference == "aligned" else fine_tuned
        self.teachers = {"harmful": aligned, "harmless": teacher, "task": fine_tuned}
        make = lambda rows: {n: Term(rows[n], settings.batch, self.teachers[n]) for n in rows}
        self.terms, self.held = [make(rows) for rows in train], make(held)
        self.weights = {"harmful": 1.0, "harmless": settings.mu, "task": settings.task_weight}
        fisher, self.draw_margin = torch.zeros_like(self.theta), 1.0
        for kind, (name, weight) in enumerate(self.weights.items()):
            if weight:
                margin = self.terms[0][name].add_fisher(fine_tuned, self.params, weight, derived_seed(settings.seed, kind), fisher)
                self.draw_margin = min(self.draw_margin, margin)
        self.costs = fisher * (self.aligned - self.tuned) ** 2 / 2
        self.costs += self.costs.mean()

    def measure(self):
        """The held-out figures at theta as the model now holds it."""
        h, r, t = (self.held[n].value(self.model) for n in ("harmful", "harmless", "task"))
        return Measured(h, r, t, max(0.0, h - self.s.enough) + self.s.mu * r + self.s.penalty * t)

    def gradient(self, round_number):
        """Step 1."""
        terms, out = self.terms[min(round_number, len(self.terms) - 1)], torch.zeros_like(self.theta)
        for name, weight in self.weights.items():
            if weight:
                terms[name].add_gradient(self.model, self.params, weight, out)
        if self.mean is not None:
            out = (1 - self.s.momentum) * out + self.s.momentum * self.mean
        self.mean = out
        return out

    def order(self, gradient):
        """Step 2: flat indices of the candidates, best first, and their s."""
        restored = self.theta == self.aligned
        d = torch.where(restored, self.tuned - self.aligned, self.aligned - self.tuned)
        s = -gradient * d / self.costs
        index = ((self.tuned != self.aligned) & (s > 0)).nonzero().squeeze(1)
        s, order = torch.sort(s[index], descending=True, stable=True)
        return index[order], s

    def restored(self):
        """Number of weights that hold the aligned value where the models differ."""
        return int(((self.theta == self.aligned) & (self.tuned != self.aligned)).sum())

    def chosen(self, order, k):
        """The flips of a trial with k: of the first k of `order`, those that give back and as many that restore as the cap allows."""
        first = order[:k]
        back = self.theta[first] == self.aligned[first]
        left = self.cap - self.restored() + int(back.sum())
        return first[back | ((~back).cumsum(0) <= left)]

    def trial(self, index):
        """The figures with these weights flipped; theta itself stays."""
        write(self.params, self.flipped(index))
        measured = self.measure()
        write(self.params, self.theta)
        return measured

    def flipped(self, index):
        """theta with these weights flipped."""
        theta = self.theta.clone()
        theta[index] = torch.where(theta[index] == self.aligned[index], self.tuned[index], self.aligned[index])
        return theta

    def round(self, number, start):
        """Steps 1 to 5."""
        gradient = self.gradient(number)
        order, s = self.order(gradient)
        done = Round(start, len(order), gradient=gradient)

        def attempt(k, index, against):
            measured = self.trial(index)
            restored = self.restored() + len(index) - 2 * int((self.theta[index] == self.aligned[index]).sum())
            done.trials.append({"k": len(index), "restored": restored} | asdict(measured))
            if k < len(s):
                done.margin = min(done.margin, float((s[k - 1] - s[k]) / s[k - 1]))
            done.merit_margin = min(done.merit_margin, abs(measured.merit - against) / against)
            return measured.merit

        k = min(self.first, len(order))
        best = self.chosen(order, k)
        while not len(best) and k < len(order):
            k = min(2 * k, len(order))
            best = self.chosen(order, k)
        while len(best) and (merit := attempt(k, best, start.merit)) >= start.merit:
            k = k // 2 if k // 2 * FEWEST >= self.first else 0
            best = self.chosen(order, k)
        halved = len(done.trials) > 1
        while len(best) and not halved:
            k = min(2 * k, len(order))
            more = self.chosen(order, k)
            if len(more) <= len(best) or (new := attempt(k, more, merit)) >= merit:
                break
            best, merit = more, new
        done.flipped = best.sort().values
        self.theta = self.flipped(done.flipped)
        write(self.params, self.theta)
        return done

    def run(self, keep_gradients=False, report=lambda _: None):
        """All rounds."""
        rounds, small, start = [], 0, self.measure()
        while len(rounds) < self.last and (small < 2 or start.harm > self.s.max_harmful):
            done = self.round(len(rounds), start)
            if not keep_gradients:
                done.gradient = None
            after = next((t for t in done.trials if t["k"] == len(done.flipped)), None)
            end = Measured(*(after[key] for key in ("harm", "harmless", "task", "merit"))) if after else start
            small = small + 1 if start.merit - end.merit < self.s.tolerance * (start.harm + self.s.mu * start.harmless) else 0
            rounds.append(done)
            report(done)
            start = end
            if self.restored() >= self.cap and start.harm > self.s.max_harmful and self.share < self.s.max_cap:
                self.share = min(2 * self.share, self.s.max_cap)
                self.cap, self.last = math.ceil(self.share * self.hidden), len(rounds) + self.s.rounds
        return rounds


def trace(strong, rounds):
    """The run as JSON: settings, counts, figures."""
    return {"settings": asdict(strong.s), "first": strong.first, "cap": math.ceil(strong.s.cap * strong.hidden), "rounds": [
        {"start": asdict(r.start), "candidates": r.candidates, "trials": r.trials, "flipped": len(r.flipped)} for r in rounds]}


def flips(strong, rounds):
    """{`round_{r}.{name}`: U32 indices}, r from 1; a tensor without a flip is left out."""
    return {f"round_{i}.{n}": index.to(torch.uint32) for i, r in enumerate(rounds, 1) for n, index in by_name(strong.params, r.flipped).items()}
