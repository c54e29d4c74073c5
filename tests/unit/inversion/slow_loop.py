"""The loop of an inversion in its obvious form: batches of rows that are put together anew whenever an image ends."""

from types import SimpleNamespace

import torch


def slow_invert(loss_and_descent, seed, target, settings, rule, *, batch_size, use_best=True):
    """Invert n pairs, at most `batch_size` at once; return `images`, `final_loss`, ... as an `Inversion` has them."""
    n, waiting = len(seed), list(range(len(seed)))
    history = seed.new_empty(settings.iterations + 1, n)
    result = SimpleNamespace(
        images=torch.empty_like(seed),
        final_loss=seed.new_empty(n),
        iterations=torch.zeros(n, dtype=torch.int64),
        stop_reason=torch.zeros(n, dtype=torch.uint8),
        stalled=torch.zeros(n, dtype=torch.bool),
        nonfinite=torch.zeros(n, dtype=torch.bool),
    )

    def begin(count):
        pairs, waiting[:count] = waiting[:count], []
        x = seed[pairs].clone()
        flags = torch.zeros(len(pairs), dtype=torch.bool)
        state = {
            "images": x,
            "best": x.clone(),
            "best_loss": x.new_full((len(x),), torch.inf),
            "nonfinite": flags,
            "stalled": flags.clone(),
        }
        return state | {
            "pairs": torch.tensor(pairs, dtype=torch.int64),
            "k": torch.zeros(len(pairs), dtype=torch.int64),
            "target": target[pairs],
            **{("memory", name): values for name, values in rule.initial_memory(x).items()},
        }

    batch = begin(batch_size)
    while len(batch["pairs"]):
        last = batch["k"] == settings.iterations
        loss, descent = loss_and_descent(batch["images"], batch["target"], with_descent=not bool(last.all()))
        history[batch["k"], batch["pairs"]] = loss
        improved = loss < batch["best_loss"]
        batch["best_loss"] = torch.where(improved, loss, batch["best_loss"])
        batch["best"] = torch.where(improved[:, None, None, None], batch["images"], batch["best"])
        batch["nonfinite"] = batch["nonfinite"] | ~loss.isfinite()
        finished, reached = last, torch.zeros_like(last)
        if settings.stop_loss is not None:
            reached = loss <= settings.stop_loss
            finished = last | reached | batch["nonfinite"]
        for row in finished.nonzero().flatten().tolist():
            pair, take_best = batch["pairs"][row], use_best or batch["nonfinite"][row]
            result.images[pair] = batch["best" if take_best else "images"][row]
            result.final_loss[pair] = batch["best_loss"][row] if take_best else loss[row]
            result.iterations[pair] = batch["k"][row]
            result.stalled[pair], result.nonfinite[pair] = batch["stalled"][row], batch["nonfinite"][row]
            result.stop_reason[pair] = 2 if batch["nonfinite"][row] else int(reached[row])
        batch = {name: values[~finished] for name, values in batch.items()}
        if len(batch["pairs"]):
            loss, descent = loss[~finished], descent[~finished]
            length = torch.linalg.vector_norm(descent, dim=(1, 2, 3))
            batch["nonfinite"] = batch["nonfinite"] | ~length.isfinite()
            batch["stalled"] = batch["stalled"] | ((length == 0) & ~batch["nonfinite"])
            memory = {name[1]: values for name, values in batch.items() if isinstance(name, tuple)}
            rule.step(memory, batch["images"], descent, length, loss)
            batch |= {("memory", name): values for name, values in memory.items()}
            put_back = batch["nonfinite"][:, None, None, None]
            batch["images"] = torch.where(put_back, batch["best"], batch["images"])
            batch["k"] = batch["k"] + 1
        started = begin(batch_size - len(batch["pairs"]))
        batch = {name: torch.cat([values, started[name]]) for name, values in batch.items()}

    after = torch.arange(len(history))[:, None] > result.iterations
    result.history = torch.where(after, result.final_loss, history)
    return result
