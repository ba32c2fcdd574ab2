"""The modules of a model by path, and their parameters."""

from collections.abc import Iterator

from torch import nn

from tracing.records import Part


def named_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, without the wrappers of torch.compile."""
    modules = dict(model.named_modules())
    if any("_orig_mod" in path for path in modules):
        modules = {clean(path): module for path, module in modules.items()}
    return modules


def clean(path: str) -> str:
    """The path without the wrappers of torch.compile."""
    return ".".join(word for word in path.split(".") if word != "_orig_mod")


def idle(module: nn.Module) -> bool:
    """Whether a module does nothing, or wraps a compiled one."""
    switched_off = isinstance(module, nn.Identity) or isinstance(module, nn.Dropout) and not module.p
    return switched_off or "_orig_mod" in module._modules


def count_parts(modules: dict[str, nn.Module]) -> dict[str, Part]:
    """The number of parameters of every module. A shared one counts at its first module, so that sums add up."""
    first: dict[int, str] = {}
    parts: dict[str, Part] = {}
    for path, module in modules.items():
        part = parts[path] = Part(type(module).__name__, 0)
        count = 0
        for name, parameter in module._parameters.items():  # named_parameters() takes five times as long
            if parameter is None:
                continue
            if id(parameter) in first:
                part.shared.append(first[id(parameter)])
                continue
            first[id(parameter)] = f"{path}.{name}" if path else name
            count += parameter.numel()
        if count:
            for above in ancestors(path):
                parts[above].parameters += count
    return parts


def ancestors(path: str) -> Iterator[str]:
    """The path, the paths of the modules around it, and "" for the model."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
