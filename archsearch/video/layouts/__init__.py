"""The ways a data set may lie on disk, each read into one `Listing`; the first that fits is taken.

| layout | known by |
|---|---|
| Kinetics lists | a csv file with the columns label, youtube_id, time_start, time_end |
| lists | train.csv, val.csv or test.csv |
| UCF101 lists | classInd.txt and trainlist01.txt |
| HMDB51 lists | jump_test_split1.txt |
| Something-Something lists | labels.json beside train.json |
| ActivityNet annotations | a JSON file with a `database` |
| Sports-1M lists | train_partition.txt whose first line is a URL and numbers |
| tar shards | train-000.tar, and no class folder with videos |
| split folders | train, val or test with folders inside |
| class folders | anything else |
"""

from archsearch.video.layouts.actions import HMDB51, UCF101
from archsearch.video.layouts.annotations import ACTIVITYNET, SOMETHING
from archsearch.video.layouts.folders import CLASS_FOLDERS, SPLIT_FOLDERS
from archsearch.video.layouts.kinetics import KINETICS
from archsearch.video.layouts.listing import Layout
from archsearch.video.layouts.lists import LISTS
from archsearch.video.layouts.shards import SHARDS
from archsearch.video.layouts.sports import SPORTS1M

LAYOUTS: tuple[Layout, ...] = (
    KINETICS,
    LISTS,
    UCF101,
    HMDB51,
    SOMETHING,
    ACTIVITYNET,
    SPORTS1M,
    SHARDS,
    SPLIT_FOLDERS,
    CLASS_FOLDERS,
)
