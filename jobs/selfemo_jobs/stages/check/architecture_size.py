"""The numbers of a decoder that its arithmetic and its memory follow from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderSize:
    """The size of a decoder by its parts."""

    body: int
    """The number of parameters that each token passes: those of the layers."""
    head: int
    """The number of parameters of the product with the vocabulary."""
    embeddings: int
    """The number of parameters of the embeddings, which are only looked up. 0 if the product with
    the vocabulary has the same ones."""
    layers: int
    query_width: int
    """The number of values of all queries of a token in one layer."""
    cache_per_token: int
    """The number of values in the KV cache for a token, in all layers."""

    @property
    def parameters(self) -> int:
        """The number of all parameters."""
        return self.body + self.head + self.embeddings

    def forward_flops(self, tokens: float, context: float, logits: float) -> float:
        """Return the floating-point operations of a forward pass.

        Parameters
        ----------
        tokens
            The number of tokens that are read or generated.
        context
            The mean number of tokens that each of them attends to.
        logits
            The number of places at which the probabilities of the next token are computed.
        """
        attention = 4.0 * self.layers * self.query_width * context
        return tokens * (2.0 * self.body + attention) + logits * 2.0 * self.head


def decoder_size(config: Mapping[str, Any], parameters: int | None = None) -> DecoderSize | None:
    """Return the size of a decoder; None if its configuration lacks one of the usual numbers.

    Parameters
    ----------
    config
        The content of ``config.json``, or of its part about the decoder.
    parameters
        The number of all parameters. None: it is computed, for a decoder of the Llama or Qwen kind.

    Examples
    --------
    >>> decoder_size(QWEN3["Qwen3-8B"]).parameters
    8190735360
    """
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    if not all(isinstance(config.get(name), int) and config[name] > 0 for name in names):
        return None
    hidden, layers, heads, vocabulary = (int(config[name]) for name in names)
    width = int(config.get("head_dim") or hidden // heads)
    groups = int(config.get("num_key_value_heads") or heads)
    query, key = heads * width, groups * width
    head = vocabulary * hidden
    embeddings = 0 if config.get("tie_word_embeddings") else head
    if parameters is None:
        inner = int(config.get("intermediate_size") or 4 * hidden)
        norms = 2 * hidden + (2 * width if config.get("model_type") == "qwen3" else 0)
        layer = 2 * hidden * query + 2 * hidden * key + 3 * hidden * inner + norms
        body = layers * layer + hidden
    else:
        body = max(parameters - head - embeddings, 0)
    return DecoderSize(body, head, embeddings, layers, query, 2 * layers * key)


def _qwen3(
    hidden: int, layers: int, heads: int, inner: int, *, tied: bool = True
) -> Mapping[str, Any]:
    return {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": inner,
        "vocab_size": 151_936,
        "tie_word_embeddings": tied,
    }


#: The published configurations of Qwen3, as far as sizes follow from them.
QWEN3: Mapping[str, Mapping[str, Any]] = {
    "Qwen3-0.6B": _qwen3(1024, 28, 16, 3072),
    "Qwen3-1.7B": _qwen3(2048, 28, 16, 6144),
    "Qwen3-4B": _qwen3(2560, 36, 32, 9728),
    "Qwen3-8B": _qwen3(4096, 36, 32, 12_288, tied=False),
}
