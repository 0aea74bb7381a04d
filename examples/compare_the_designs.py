# %% [markdown]
# # Comparing the designs
#
# 2D, 3D below, 3D above, 3D, (2+1)D: the designs of Tran et al. 2018, side by side by cost, by speed on this machine,
# and by what they learn from clips in a short training.
#
#     python examples/compare_the_designs.py [FOLDER]
#
# FOLDER has your clips (see `docs/data.md`); without one, demo clips are made, in which classes are pairs that are each
# other played backwards. All results go to `example/designs`. The settings are tiny, so that it ends within a minute:
# too short a training for a verdict.

# %%
import sys
from pathlib import Path

import archsearch as a

folders = [name for name in sys.argv[1:] if Path(name).is_dir()]
clips = Path(folders[0]) if folders else a.make_demo("example/clips")
out = Path("example/designs")
print("clips:", clips)

# %% [markdown]
# ## As published

# %%
print(a.compare("r3d_18", "mc3_18"))

# %%
designs = ("fr2d_18", "mc3_18", "rmc3_18", "r3d_18", "r2plus1d_18")
for name in designs:
    cost = a.show(name)
    print(f"{name}: {cost['macs'] / 1e9:.1f} gmacs, {cost['params'] / 1e6:.1f}M parameters")

# %% [markdown]
# ## As small as a short training needs them

# %%
small = {"res*.depth": 1, "stem.width": 8, "res2.width": 8, "res3.width": 16, "res4.width": 32, "res5.width": 64}
specs = {name: a.load_spec(name, clip=(3, 4, 32, 32), settings=small) for name in designs}
speed = a.bench(*specs.values(), rounds=5)
print(speed)

# %%
speed.plot(out / "speed.png")

# %% [markdown]
# ## What they learn
#
# Top-1 on `test`, and on the same clips played backwards. A network that does not look at the order of frames says the
# same of both.

# %%
recipe = {"epochs": 3, "warmup_epochs": 1, "lr": 3e-3, "views": 1, "flip": False}
val = {}
for name, spec in specs.items():
    val[name] = a.train(spec, clips, out=out / name, recipe=recipe)["metrics"]["top1"]
    forwards, backwards = (a.evaluate(out / name, clips, split="test", reverse=way) for way in (False, True))
    print(f"{name}: top-1 {forwards['top1']:.3f}, backwards {backwards['top1']:.3f}")

# %% [markdown]
# The network that did best on `val`, as a matrix of who is taken for whom:

# %%
best = max(designs, key=lambda name: val[name])
found = a.evaluate(out / best, clips, split="test")
print(found)

# %%
found.plot(out / "confusion.png")
