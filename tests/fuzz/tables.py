"""Hostile tables: every reader over any bytes in the place of each of its tables.

The first byte says which table the rest is. The pictures are empty files: no reader opens them.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from dermedge.data import PARTS, DataError, load, make_split
from dermedge.taxonomy import CLASSES, MALIGNANT

_HOT = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_1,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"
_MILK = "lesion_id,AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC\n"
_MILK_PICTURES = "lesion_id,image_type,isic_id,age_approx,sex,skin_tone_class,site\n"
_2020 = "image_name,patient_id,lesion_id,sex,age_approx,diagnosis,benign_malignant,target\n"

# Reader, pictures, tables; each table of a tree is a target of its own.
_TREES: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    (
        "csv",
        ("a.png", "b.jpg", "in/c.png", "m.png"),
        {
            "data.csv": "id,image,mask,diagnosis,lesion_id,patient_id,age,sex,site,skin_type,"
            "modality,licence,malignant,split\n"
            "1,a.png,m.png,nevus,L1,P1,41,f,back,II,Dermoscopy,CC0,no,train\n"
            "2,in\\c,,Melanom,L2,P2,60 Jahre,m,,3,clinical,,ja,val\n"
        },
    ),
    (
        "ham10000",
        ("p/ISIC_1.jpg", "p/ISIC_2.jpg"),
        {
            "HAM10000_metadata": "lesion_id\timage_id\tdx\tage\tsex\tlocalization\n"
            "HAM_1\tISIC_1\tbkl\t80.0\tmale\tscalp\nHAM_1\tISIC_2\tnv\t\tunknown\t\n"
        },
    ),
    (
        "isic2016",
        ("ISBI2016_ISIC_Part3_Training_Data/ISIC_1.jpg",),
        {"ISBI2016_ISIC_Part3_Training_GroundTruth.csv": "ISIC_1,benign\n"},
    ),
    (
        "isic2017",
        ("ISIC-2017_Training_Data/ISIC_1.jpg",),
        {
            "ISIC-2017_Training_Part3_GroundTruth.csv": "image_id,melanoma,seborrheic_keratosis\n"
            "ISIC_1,1.0,0.0\n",
            "ISIC-2017_Training_Data_metadata.csv": "image_id,age_approximate,sex\nISIC_1,5,m\n",
        },
    ),
    (
        "isic2018_task3",
        ("ISIC2018_Task3_Training_Input/ISIC_1.jpg",),
        {
            "ISIC2018_Task3_Training_GroundTruth.csv": _HOT,
            "ISIC2018_Task3_Training_LesionGroupings.csv": "image,lesion_id\nISIC_1,HAM_1\n",
        },
    ),
    (
        "isic2019",
        ("ISIC_2019_Training_Input/ISIC_1.jpg",),
        {
            "ISIC_2019_Training_GroundTruth.csv": "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
            "ISIC_1,0,0,0,0,0,0,0,0,1\n",
            "ISIC_2019_Training_Metadata.csv": "image,age_approx,lesion_id,sex\nISIC_1,5,B_1,m\n",
        },
    ),
    (
        "isic2020",
        ("train/ISIC_1.jpg", "train/ISIC_2.jpg"),
        {
            "train.csv": f"{_2020}ISIC_1,IP_1,IL_1,male,45,melanoma,malignant,1\n"
            "ISIC_2,IP_2,IL_2,female,,unknown,benign,0\n",
            "ISIC_2020_Training_Duplicates.csv": "image_name_1,image_name_2\nISIC_1,ISIC_2\n",
        },
    ),
    (
        "isic2024",
        ("train-image/image/ISIC_1.jpg", "train-image/image/ISIC_2.jpg"),
        {
            "train-metadata.csv": "isic_id,target,patient_id,age_approx,iddx_full,iddx_1,iddx_3\n"
            "ISIC_1,1,IP_0,50,Malignant::Melanoma,Malignant,Melanoma\nISIC_2,0,IP_1,51,Benign,,\n",
            "ISIC_2024_Training_GroundTruth.csv": "isic_id,malignant\nISIC_1,1.0\n",
        },
    ),
    (
        "milk10k",
        ("MILK10k_Training_Input/IL_1/ISIC_1.jpg", "MILK10k_Training_Input/IL_1/ISIC_2.jpg"),
        {
            "MILK10k_Training_GroundTruth.csv": f"{_MILK}IL_1,0.0,1.0{',0.0' * 9}\n",
            "MILK10k_Training_Metadata.csv": f"{_MILK_PICTURES}"
            "IL_1,dermoscopic,ISIC_1,70,male,3,trunk\nIL_1,clinical: close-up,ISIC_2,70,male,3,\n",
        },
    ),
    (
        "ph2",
        ("IMD003.bmp", "IMD003_lesion.bmp"),
        {"PH2_dataset.txt": "|| Name || H || Clinical ||\n|| IMD003 ||  || 2 || 0 ||\n"},
    ),
    (
        "pad_ufes_20",
        ("images/PAT_1_2_3.png", "student_masks/PAT_1_2_3_mask.png"),
        {
            "metadata.csv": "patient_id,lesion_id,fitspatrick,age,gender,region,diagnostic,img_id,"
            "iou_best_other\nPAT_1,2,3.0,59,MALE,FACE,BCC,PAT_1_2_3.png,0.8\n"
        },
    ),
    (
        "derm7pt",
        ("images/a.jpg", "images/b.jpg"),
        {
            "meta/meta.csv": "case_num,diagnosis,clinic,derm,sex,location\n1,nevus,a.jpg,b.jpg,,\n",
            "meta/train_indexes.csv": "indexes\n0\n",
        },
    ),
    (
        "isic_cli",
        ("ISIC_1.jpg",),
        {
            "metadata.csv": "isic_id,diagnosis_1,diagnosis_3,copyright_license,lesion_id\n"
            'ISIC_1,Benign,"Nevus, Blue",CC-0,IL_1\n'
        },
    ),
)
TABLES = tuple((tree, name) for tree in _TREES for name in tree[2])
SEEDS = [bytes([i]) + tree[2][name].encode() for i, (tree, name) in enumerate(TABLES)]


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fuzz-tables-")


@cache
def _root(reader: str) -> Path:
    """The reader's tree, made once in a process."""
    pictures, tables = next(tree[1:] for tree in _TREES if tree[0] == reader)
    root = Path(_folder().name) / reader
    for name in pictures:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    return root


def one(data: bytes) -> None:
    """Read the bytes as a table; what comes out keeps the promises of `Record` and `Split`."""
    (reader, _, tables), name = TABLES[data[0] % len(TABLES)] if data else TABLES[0]
    root = _root(reader)
    (root / name).write_bytes(data[1:])
    found = line = None
    try:
        found = load(reader, root)
        split = make_split(found, by_picture=True)
    except DataError as error:
        line = str(error)
    finally:
        (root / name).write_bytes(tables[name].encode())
    assert line is None or line.isprintable()
    if line or found is None:
        return
    assert all(line.isprintable() for line in (*found.problems, *found.notes))
    assert len({record.id for record in found.records}) == len(found.records)
    for record in found.records:
        assert record.image.is_relative_to(root)
        assert record.mask is None or record.mask.is_relative_to(root)
        assert record.label is None or record.label in CLASSES
        if record.label not in (None, "other"):
            assert record.malignant == (record.label in MALIGNANT)
        assert record.age is None or 0 <= record.age <= 120
    parts = {i: part for part in PARTS for i in split.parts[part]}
    for key in ("lesion_id", "patient_id"):
        seen: dict[str, str] = {}
        for record in found.records:
            group = getattr(record, key)
            if group is not None and record.id in parts:
                assert seen.setdefault(group, parts[record.id]) == parts[record.id]
