import pytest
import torch


@pytest.fixture
def with_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is used as on a CPU with AMX; any other computes the same, more slowly."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
