"""What a convolution site's kernel becomes when its kind, size or padding changes, and whether that is exact."""

from typing import Literal, NamedTuple

from archsearch.spec.graph import Conv, Part, Triple, parts

Inflate = Literal["centre", "mean"]  # what a 2D kernel becomes in 3D: its centre tap, or all taps alike


class Kernel(NamedTuple):
    """The rule the transfer follows, whether outputs stay the same, and words for people."""

    rule: str
    exact: bool
    words: str


def kernel_change(old: Conv, c_old: int, op: Conv, c_in: int, inflate: Inflate, *, absorbs: bool) -> Kernel:
    """How one site's kernel becomes another's; `absorbs` says whether the norm and act behind may stand inside it."""
    was, now = parts(old, c_old), parts(op, c_in)
    change = f"{old.kind} -> {op.kind}" if old.kind != op.kind else ""
    if len(was) == len(now) == 1:
        return _plain(was[0], now[0], change, inflate)
    if len(was) == len(now):
        if old.first != op.first or old.kernel != op.kernel:
            return Kernel("effective", False, f"{change or 'another order or kernel'}, through the whole kernel")
        return _halves(old, op, was, now, change)
    if len(was) == 2:
        return Kernel("effective", False, f"{change}, the two halves multiplied")
    if was[0].kernel[0] > 1:
        return Kernel("split", False, f"{change}, halves fitted to the kernel")
    if not _is_centred(was[0], op):
        return Kernel("split", False, f"{change}, another kernel or padding")
    if absorbs and op.mid >= op.out and op.act.fn == "relu" and op.first == "space" and op.groups == 1 and not op.bias:
        return Kernel("absorb", True, f"{change}, the centre tap after norm and act")
    if op.mid >= 2 * op.out and op.act.fn == "relu" and op.first == "space" and op.groups == 1:
        return Kernel("signs", True, f"{change}, the centre tap of both signs")
    return Kernel("split", False, f"{change}, the centre tap behind an activation")


def _is_centred(was: Part, op: Conv) -> bool:
    """Whether a factorised site may do what a 2D kernel did: its frames' centres and its places are the same."""
    time = op.kernel[0], op.padding[0], op.extra[0]
    same = (was.kernel[1:], was.padding[1:], was.extra[1:]) == (op.kernel[1:], op.padding[1:], op.extra[1:])
    return same and was.padding[0] == 0 and time == (op.kernel[0] // 2 * 2 + 1, op.kernel[0] // 2, 0)


def _halves(old: Conv, op: Conv, was: tuple[Part, ...], now: tuple[Part, ...], change: str) -> Kernel:
    """Both halves are copied; the norm and the act between them have to be the same."""
    differs = [
        word
        for word, same in (
            ("act inside", old.act == op.act),
            ("eps", old.norm.eps == op.norm.eps),
            ("padding", all(_padding(a) == _padding(b) for a, b in zip(was, now, strict=True))),
        )
        if not same
    ]
    words = [change, *(f"another {word}" for word in differs)]
    if old.mid != op.mid:
        words.append(f"{old.mid} -> {op.mid} inner channels")
    return Kernel("copy", not differs, "; ".join(filter(None, words)))


def _plain(was: Part, now: Part, change: str, inflate: Inflate) -> Kernel:
    """One convolution becomes another one."""
    if was.kernel == now.kernel:
        same = _padding(was) == _padding(now)
        return Kernel("copy", same, change if same else "another padding")
    words = change or f"kernel {sides(was.kernel)} -> {sides(now.kernel)}"
    if all(a <= b for a, b in zip(was.kernel, now.kernel, strict=True)):
        if inflate == "mean" and was.kernel[0] == 1 < now.kernel[0] and was.kernel[1:] == now.kernel[1:]:
            return Kernel("inflate", False, f"{words}, repeated over time and divided by {now.kernel[0]}")
        grown = zip(was.kernel, now.kernel, was.padding, now.padding, strict=True)
        centred = all((b - a) % 2 == 0 and q - p == (b - a) // 2 for a, b, p, q in grown)
        return Kernel("centre", centred and was.extra == now.extra, f"{words}, the centre tap")
    if now.kernel[0] == 1 and now.kernel[1:] == was.kernel[1:]:
        return Kernel("sum", False, f"{words}, summed over time")
    return Kernel("sum", False, f"{words}, cut to the centre")


def _padding(part: Part) -> tuple[Triple, Triple]:
    return part.padding, part.extra


def sides(triple: Triple) -> str:
    """3x3x3."""
    return "x".join(map(str, triple))
