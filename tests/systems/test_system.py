"""What systems say of themselves: without torch, and so that each part is found."""

import subprocess
import sys

import pytest

from blurkit.systems.system import NAMES, WEIGHTS, Shapes, network_class, systems
from tests.shared import ROOT


def test_systems_are_described_without_torch_and_built_without_its_compiler() -> None:
    code = (
        "import sys; import blurkit.systems; from blurkit.systems.system import *; systems(); "
        "assert 'torch' not in sys.modules; "
        "from blurkit.systems.registry import load_networks; "
        "[load_networks(load_shipped(name)) for name in ('msdi', 'kernel-space', 'deconvolution')];"
        "compiler = {'torch._dynamo', 'torch.onnx', 'sympy'} & {*sys.modules}; import torch; "
        "old = torch.__version__ < '2.7'; "  # it imports sympy for any zeros without values
        "assert compiler <= ({'sympy'} if old else set()), compiler"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_each_folder_is_a_system_and_each_system_has_one_name() -> None:
    folders = {path.parent.name for path in (ROOT / "blurkit/systems").glob("*/__init__.py")}
    assert folders == {*NAMES}
    assert len({system.name for system in systems().values()}) == len(NAMES)


@pytest.mark.parametrize("folder", NAMES)
def test_what_a_system_names_is_there(folder: str) -> None:
    system = systems()[folder]
    for architecture in system.architectures:
        assert callable(network_class(folder, architecture).from_shapes)
        assert architecture.matches(Shapes(dict.fromkeys(architecture.keys, ())))
        assert not architecture.matches(Shapes(dict.fromkeys(architecture.keys[1:], ())))
    if system.library:
        assert callable(network_class(folder, system.library).from_tensors)
    if system.weights:
        assert (WEIGHTS / system.weights).is_file()
