"""A busy or sick GPU and a lack of memory pass; wrong arguments and broken weights do not."""

from __future__ import annotations

import errno
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from selfemo_jobs.engines import vllm_engine
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.errors import BadInput, StageError, Unavailable
from selfemo_jobs.models.fetch import load_model, load_tokenizer, move_model
from selfemo_jobs.models.load_errors import is_transient_load_error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


#: As PyTorch, the drivers, NCCL and vLLM word them.
PASSING: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("Found no NVIDIA driver on your system."),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:2093, unhandled system error"),
    RuntimeError("HIP error: the operation cannot be performed in the present state"),
    ValueError(
        "Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used."
    ),
    AssertionError("Error in memory profiling. Initial free memory 70 GiB, current 72 GiB."),
    caused(RuntimeError("the engine cannot start"), RuntimeError("CUDA out of memory")),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    RuntimeError("The server socket has failed to bind: address already in use"),
]
#: Errors about arguments, and about the model.
LASTING: list[Exception] = [
    TypeError("EngineArgs.__init__() got an unexpected keyword argument 'max_len'"),
    ValueError("User-specified max_model_len (9000) is greater than the derived max_model_len"),
    ValueError("No available memory for the cache blocks. Try increasing gpu_memory_utilization"),
    ValueError("Total number of heads (14) must be divisible by tensor parallel size (4)"),
    AssertionError("duplicate layer name"),
    KeyError("model.layers.0.mlp.weight"),
    NotImplementedError("Speculative decoding is not supported with this model"),
    ImportError("Loading an AWQ quantized model requires gptqmodel"),
    OSError("/model does not appear to have a file named config.json"),
    FileNotFoundError(errno.ENOENT, "No such file", "/model/x"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("CUDA error: invalid device ordinal"),
]


def name_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:60]


@pytest.mark.parametrize("error", PASSING, ids=name_of)
def test_errors_that_pass(error: Exception) -> None:
    assert is_transient_load_error(error)


@pytest.mark.parametrize("error", LASTING, ids=name_of)
def test_errors_that_last(error: Exception) -> None:
    assert not is_transient_load_error(error)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A library in the place of vLLM, whose start raises `error`."""
    state = types.SimpleNamespace(error=RuntimeError())

    def start(**_arguments: Any) -> None:
        raise state.error

    library: Any = types.ModuleType("vllm")
    library.LLM = start
    platforms: Any = types.ModuleType("vllm.platforms")
    platforms.current_platform = types.SimpleNamespace(is_cpu=lambda: False)
    monkeypatch.setitem(sys.modules, "vllm", library)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    return state


def load_vllm(folder: Path) -> None:
    vllm_engine._load(folder, folder, {"gpu_memory_utilization": 0.9}, 64, 0)


@pytest.mark.parametrize("error", PASSING, ids=name_of)
def test_vllm_is_tried_again_where_it_may_help(
    error: Exception, vllm: types.SimpleNamespace, tmp_path: Path
) -> None:
    vllm.error = error
    with pytest.raises(Unavailable, match="run the same command again") as caught:
        load_vllm(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("error", [e for e in LASTING if type(e) is not RuntimeError], ids=name_of)
def test_arguments_of_vllm_are_bad_input(
    error: Exception, vllm: types.SimpleNamespace, tmp_path: Path
) -> None:
    vllm.error = error
    with pytest.raises(BadInput, match=r"vLLM cannot load .* with `engineArgs` .*0\.9"):
        load_vllm(tmp_path)


def test_a_reason_that_vllm_does_not_tell_is_not_bad_input(
    vllm: types.SimpleNamespace, tmp_path: Path
) -> None:
    vllm.error = RuntimeError("Engine core initialization failed. See root cause above.")
    with pytest.raises(StageError, match="Engine core") as caught:
        load_vllm(tmp_path)
    assert type(caught.value) is StageError


@pytest.mark.parametrize("library", ["AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"])
def test_a_model_of_transformers_is_tried_again(
    library: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[Exception] = []

    def read(*_arguments: Any, **_options: Any) -> None:
        raise raised[-1]

    monkeypatch.setattr(f"transformers.{library}.from_pretrained", read)
    errors: list[tuple[Exception, type[StageError]]] = [
        (MemoryError(), Unavailable),
        (OSError(errno.EIO, os.strerror(errno.EIO)), Unavailable),
        (ValueError("no such kind"), BadInput),
    ]
    for error, expected in errors:
        raised.append(error)
        with pytest.raises(expected):
            if library == "AutoTokenizer":
                load_tokenizer(tiny_model)
            else:
                load_model(tiny_model, torch.float32)


def test_a_missing_library_is_bad_input(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_arguments: Any, **_options: Any) -> None:
        raise ImportError("Loading a GPTQ quantized model requires optimum")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", read)
    with pytest.raises(BadInput, match="requires optimum"):
        load_model(tiny_model, torch.float32)


def test_a_device_without_memory(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_arguments: Any, **_options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model = load_model(tiny_model, torch.float32)
    monkeypatch.setattr(torch.nn.Module, "to", no_memory)
    with pytest.raises(Unavailable, match="out of memory"):
        move_model(model, torch.device("cpu"), tiny_model)
    with pytest.raises(Unavailable, match="out of memory"):
        TransformersEngine(tiny_model, TransformersArgs(device="cpu"), max_model_len=64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CUDA error: all CUDA-capable devices are busy or unavailable", Unavailable),
        ("CUDA error: invalid device ordinal", BadInput),
        ("Expected one of cpu, cuda, xpu device type at start of device string: gpu", BadInput),
    ],
)
def test_a_device_that_cannot_be_used(
    text: str, expected: type[StageError], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(expected, match=r"`engineArgs\.device` cuda:3"):
        TransformersEngine(tiny_model, TransformersArgs(device="cuda:3"), max_model_len=64)
