"""What the tests of the deconvolution try: that of the weights that come with blurkit."""

import pytest

from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for


@pytest.fixture(scope="session")
def deconvolution() -> Deconvolution:
    network = network_for("deconvolving", load_shipped("deconvolution"))
    return Deconvolution(network, WindowOptions(), "cpu", "fp32")
