"""Layers that are not trained read a row once; nothing else changes."""

from __future__ import annotations

import random
from typing import Any

import torch
from tests.unit.jobs.acceleration.test_prefix_packing import llama
from trl.trainer.utils import add_fused_lm_head

from selfemo_jobs.acceleration.frozen_layer_cache import FrozenLayerCache, fits_cache
from selfemo_jobs.acceleration.prefix_packing import PackedBatch, pack, packed_logprobs
from selfemo_jobs.models.trained_layers import train_last_layers


def model() -> Any:
    made = llama(layers=4).to(torch.float64)  # rounding aside, it is the same
    add_fused_lm_head(made, 0.7, outputs=("log_probs", "entropy"))
    train_last_layers(made, 2)
    return made


def groups(count: int) -> list[tuple[list[int], list[list[int]]]]:
    chance = random.Random(3)

    def some(most: int) -> list[int]:
        return [chance.randrange(3, 300) for _ in range(chance.randint(1, most))]

    return [(some(20), [some(4) for _ in range(3)]) for _ in range(count)]


def packed(chosen: list[tuple[list[int], list[list[int]]]]) -> PackedBatch:
    prompts = [prompt for prompt, said in chosen for _ in said]
    return pack(prompts, [c for _, said in chosen for c in said], 4, 0)


def gradients(
    net: Any, frozen: FrozenLayerCache | None, batch: PackedBatch
) -> dict[str, torch.Tensor]:
    net.zero_grad()
    if frozen is None:
        logprobs, _ = packed_logprobs(net, batch)
    else:
        with frozen.reading(batch):
            logprobs, _ = packed_logprobs(net, batch)
    logprobs.sum().backward()
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    return {"": logprobs.detach(), **found}


def test_a_group_is_read_once_and_counts_the_same_in_any_batch() -> None:
    plain, remembering = model(), model()
    frozen = FrozenLayerCache(remembering, 2, 10_000)
    reads = [0] * 4
    for index, layer in enumerate(remembering.model.layers):

        def count(*_: Any, index: int = index) -> None:
            reads[index] += 1

        layer.mlp.register_forward_pre_hook(count)
    played = groups(6)
    batches = [played[:3], played[3:], [played[4], played[0]], played[::-1]]
    for batch in batches:
        expected = gradients(plain, None, packed(batch))
        found = gradients(remembering, frozen, packed(batch))
        assert found.keys() == expected.keys()
        assert any(n.startswith("model.layers.2.") for n in found)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    assert reads == [2, 2, 4, 4]


def test_a_batch_with_a_group_that_is_not_known_is_read() -> None:
    plain, remembering = model(), model()
    frozen = FrozenLayerCache(remembering, 2, 10_000)
    played = groups(3)
    for batch in (played[:2], played[1:]):
        expected = gradients(plain, None, packed(batch))
        found = gradients(remembering, frozen, packed(batch))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)


def test_a_batch_that_was_not_announced_is_read_and_forgotten() -> None:
    plain, remembering = model(), model()
    FrozenLayerCache(remembering, 2, 10_000)
    ids = torch.tensor([[5, 6, 7]])
    expected, found = plain(ids).logits, remembering(ids).logits
    torch.testing.assert_close(found, expected)


def test_no_more_than_the_limit_is_kept_and_the_rest_is_read() -> None:
    plain, remembering = model(), model()
    played = groups(6)
    sizes = [len(group) for group in packed(played).groups]
    frozen = FrozenLayerCache(remembering, 2, sum(sizes[:4]))
    for batch in (played, played[:4], played[3:], played):
        expected = gradients(plain, None, packed(batch))
        found = gradients(remembering, frozen, packed(batch))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)
    assert sum(len(states) for states in frozen._states.values()) <= sum(sizes[:4])


def test_a_batch_has_something_new_while_one_of_its_groups_fits() -> None:
    played = groups(6)
    sizes = [len(group) for group in packed(played).groups]
    net = model()
    frozen = FrozenLayerCache(net, 2, sum(sizes[:4]))
    assert not frozen.has_nothing_new(packed(played))
    gradients(net, frozen, packed(played[:4]))
    assert frozen.has_nothing_new(packed(played[:4]))
    assert frozen.has_nothing_new(packed(played))  # the limit is reached


def test_what_is_too_large_does_not_fit() -> None:
    assert fits_cache(400_000, 576, 4)
    assert not fits_cache(1_000_000, 4096, 2)
