# %% [markdown]
# # Cutting a trained network
#
# A 3D network is trained; then time is taken out of its lower stages, and a stage is made narrower. How much is saved,
# what stays exactly, and how much of what was learned is left, before and after a short fine-tuning?
#
#     python examples/cut_a_trained_network.py [FOLDER]
#
# FOLDER has your clips (see `docs/data.md`); without one, demo clips are made. All results go to `example/cut`. The
# settings are tiny, so that it ends within a minute.

# %%
import sys
from pathlib import Path

import archsearch as a

folders = [name for name in sys.argv[1:] if Path(name).is_dir()]
clips = Path(folders[0]) if folders else a.make_demo("example/clips")
out = Path("example/cut")
print("clips:", clips)

# %% [markdown]
# ## A network to cut
#
# Weights of other projects serve as well: `a.import_weights("r3d_18.pth", "r3d_18")`.

# %%
small = {"res*.depth": 1, "stem.width": 8, "res2.width": 8, "res3.width": 16, "res4.width": 32, "res5.width": 64}
spec = a.load_spec("r3d_18", clip=(3, 4, 32, 32), settings=small)
print(a.show(spec))

# %%
recipe = {"epochs": 8, "warmup_epochs": 1, "lr": 3e-3, "views": 1, "flip": False}
print(a.train(spec, clips, out=out / "r3d", recipe=recipe))

# %% [markdown]
# ## Plans
#
# Without `out` nothing is written: the result says what would become of each site.

# %%
for settings in ({"stem.conv": "2d"}, {"stem.conv": "2d", "res2.conv": "2d"}, {"res5.width": 48}):
    plan = a.surgery(out / "r3d", settings=settings)
    before, after = plan["macs"]["before"], plan["macs"]["after"]
    print(f"{settings}: {1 - after / before:.0%} of the multiply-adds saved, exact: {plan['exact']}")

# %%
print(a.surgery(out / "r3d", settings={"res2.conv": "2d"}))

# %% [markdown]
# ## The operation
#
# Approximated sites are fitted to what the old network computes on the training clips; labels are not read.

# %%
a.surgery(out / "r3d", settings={"res2.conv": "2d"}, out=out / "cut", data=clips)

# %% [markdown]
# ## What is left, and what a little training brings back

# %%
tuning = {**recipe, "epochs": 3, "lr": 1e-3}
a.train(out / "cut", clips, out=out / "tuned", recipe=tuning, start=out / "cut")
for name in ("r3d", "cut", "tuned"):
    found = a.evaluate(out / name, clips, split="test")
    low, high = found["top1_interval"]
    print(f"{name}: top-1 {found['top1']:.3f} ({low:.3f} to {high:.3f})")

# %% [markdown]
# ## For use elsewhere
#
# A model folder with ONNX and a card, where the packages for it are installed (`pip install 'archsearch[onnx]'`).

# %%
print(a.export(out / "tuned", out=out / "model", data=clips))
