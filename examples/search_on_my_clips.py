# %% [markdown]
# # A search on your own clips
#
# Where does time belong in a network for your videos? This searches a small space on a folder of clips, looks at
# the front, and trains the network chosen from it.
#
#     python examples/search_on_my_clips.py [FOLDER]
#
# FOLDER has `train/ val/ test/` with a folder of videos for each class, or is in another layout of `docs/data.md`.
# Without one, demo clips are made: shapes that move, turn and grow, where only the order of frames tells the classes
# apart. All results go to `example/search`. The settings are tiny, so that it ends within a minute.

# %%
import sys
from pathlib import Path

import archsearch as a

folders = [name for name in sys.argv[1:] if Path(name).is_dir()]
clips = Path(folders[0]) if folders else a.make_demo("example/clips")
out = Path("example/search")
out.mkdir(parents=True, exist_ok=True)
print("clips:", clips)

# %% [markdown]
# ## The space
#
# An 18-layer R3D, one block a group and an eighth of the width. Each of its five groups is 2D or 3D; the published
# designs in the space are tried first. For a real search begin with `search_spaces/small.yaml`.

# %%
SPACE = """
name: mine
base: r3d_18
set: {clip: [3, 4, 32, 32], "res*.depth": 1, "*.width": {scale: 0.125}, stem.mid: {scale: 0.125}}
vary:
  - {field: conv, stages: [stem, "res*"], each: [2d, 3d]}
objectives: {top1: maximize, gmacs: minimize}
published: [fr2d_18, r3d_18]
search: {trials: 4}
"""
space_file = out / "space.yaml"
space_file.write_text(SPACE)
space = a.read_space(space_file)
print(space)

# %%
space.plot(out / "space.png")

# %% [markdown]
# ## The search
#
# Two processes train; the same call goes on where an earlier one was cut short. Mirrored clips are off, since a move
# to the right would become one to the left.

# %%
recipe = {"epochs": 2, "warmup_epochs": 1, "lr": 3e-3, "views": 1, "flip": False}
run = a.search(space_file, clips, out=out / "run", recipe=recipe)
front = run.front()
print(front)

# %%
front.plot(out / "front.png")

# %% [markdown]
# ## One network of the front
#
# The best one by the first objective; `knee=True`, `at_most={"gmacs": 0.01}` or `like="r3d_18"` choose others.

# %%
choice = run.choose()
print(choice)

# %% [markdown]
# It is trained once more, longer, and scored on the split that nothing was selected on: forwards and backwards.
# `run.finalize(clips)` does so for the whole front, with several seeds.

# %%
best = out / "best"
a.train(choice.folder, clips, out=best, recipe={**recipe, "epochs": 4})
scores = a.evaluate(best, clips, split="test")
print(scores)
print("played backwards:", a.evaluate(best, clips, split="test", reverse=True)["top1"])

# %%
scores.plot(out / "confusion.png")

# %% [markdown]
# ## What it says of a video

# %%
videos = sorted(each for each in clips.rglob("*.*") if each.suffix in (".mp4", ".avi", ".mkv", ".webm"))
if videos:
    print(a.predict(best, videos[:3], top=2))
