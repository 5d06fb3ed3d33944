"""Networks of users, which their code defines, and other networks trained by one recipe for all."""

from blurkit.systems.system import System, Training

SYSTEM = System(
    "any-network",
    "any network",
    architectures=(),
    uses={"deblurring": "a network of one's own, with its code (--network)"},
    trainings=(
        Training(
            "any-network",
            "train-deblur",
            "what --network names, such as your own class.",
            "AnyConfiguration",
            "plan",
            "AnyInputs",
            chosen_by="--network",
        ),
    ),
)
