"""One reader per data set, one module per publisher, for the layout in which it is handed out.

A reader finds its table or folder anywhere below the path that it is given, so that the folder
above works as well as the data set's own. Add a data set by writing a function that fills a
`Gathering` and listing its `Reader` in READERS; the contract test then runs it.
"""

from dermedge.data.readers.derm7pt import DERM7PT
from dermedge.data.readers.folders import FOLDERS
from dermedge.data.readers.gathering import Gathering, Reader
from dermedge.data.readers.ham10000 import HAM10000
from dermedge.data.readers.isic_archive import ISIC2024, ISIC_CLI
from dermedge.data.readers.isic_challenge import (
    ISIC2016,
    ISIC2017,
    ISIC2018_TASK1,
    ISIC2018_TASK3,
    ISIC2019,
    ISIC2020,
)
from dermedge.data.readers.med_node import MED_NODE
from dermedge.data.readers.milk10k import MILK10K
from dermedge.data.readers.own_table import CSV, CSV_COLUMNS, PROCEDURAL
from dermedge.data.readers.pad_ufes_20 import PAD_UFES_20
from dermedge.data.readers.ph2 import PH2

__all__ = ["CSV_COLUMNS", "READERS", "Gathering", "Reader"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        HAM10000,
        ISIC2016,
        ISIC2017,
        ISIC2018_TASK1,
        ISIC2018_TASK3,
        ISIC2019,
        ISIC2020,
        ISIC2024,
        MILK10K,
        PH2,
        PAD_UFES_20,
        MED_NODE,
        DERM7PT,
        FOLDERS,
        CSV,
        ISIC_CLI,
        PROCEDURAL,
    )
}
