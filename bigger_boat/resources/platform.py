"""The platform's stack: its parameters, and what its outputs are as settings.

What belongs elsewhere: what is in it (``deploy/platform.yaml``), change sets (``stacks.py``), images (``images.py``).
"""

import re
from collections.abc import Callable, Iterator, Mapping

from bigger_boat.errors import CloudError, SettingsError
from bigger_boat.resources.stacks import Stack
from bigger_boat.settings import PREFIX, Settings

TEMPLATE = "platform.yaml"
IMAGE_TAG = "ImageTag"


def platform_stack(settings: Settings, tell: Callable[[str], None]) -> Stack:
    """Return the stack."""
    return Stack(settings.platform_stack, tell)


def update_platform(
    settings: Settings, stack: Stack, given: Mapping[str, str], agree: Callable[[list[str]], bool]
) -> list[str]:
    """Bring the stack up to date if ``agree`` does to the changes; return those that were made.

    Parameters that are not given stay as they are. Raises CloudError with what failed.
    """
    template = (settings.deploy_dir / TEMPLATE).read_text()
    told = {
        "EndpointPrefix": settings.endpoint_prefix,
        "ApiStack": settings.api_stack,
        "KmsKey": settings.storage_kms_key,
    }
    return stack.update(template, {**stack.parameters_for(template), **told, **given}, agree)


def parameters_of(pairs: list[str]) -> dict[str, str]:
    """Return ``NAME=VALUE`` as a mapping. Raises SettingsError for what is no pair."""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (name, sign, _) in zip(pairs, split, strict=True) if not name or not sign]:
        raise SettingsError(f"No parameter: {', '.join(wrong)}.", "Write --set NAME=VALUE, as in --set BudgetUsd=50.")
    return {name: value for name, _, value in split}


def outputs_of(stack: Stack) -> dict[str, str]:
    """Return what the stack says of itself. Raises CloudError where there is none."""
    found = stack.outputs()
    if not found:
        raise CloudError(f"There is no stack {stack.name} yet.", "bigger-boat deploy platform makes it.")
    return found


def settings_lines(outputs: Mapping[str, str]) -> Iterator[str]:
    """Yield lines for ``.env``: an output that is named as a setting is one. The rest follows as comments."""
    lines = {_setting(name): value for name, value in outputs.items()}
    yield from (f"{PREFIX}{name.upper()}={value}" for name, value in lines.items() if name in Settings.model_fields)
    yield from (f"# {name}: {value}" for name, value in outputs.items() if _setting(name) not in Settings.model_fields)


def _setting(output: str) -> str:
    """Return ``BatchGpuQueue`` as ``batch_gpu_queue``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", output).lower()
