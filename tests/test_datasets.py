"""Every reader against a small tree in its publisher's layout, and the real sets where present."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge.cli import main
from dermedge.data import READERS, DataError, Record, Split, load, parse_source
from dermedge.data.check import _contradictions, arguments, check, run
from dermedge.data.synthetic import write_data_set
from dermedge.data.tables import DELIMITERS, decode
from dermedge.metadata import region
from dermedge.taxonomy import CLASSES, MALIGNANT, interpret


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def mask(path: Path, size: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    pixels[6:18, 8:24] = 255
    assert cv2.imwrite(str(path), pixels)
    return path


def table(path: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def ham10000(root: Path) -> None:
    table(
        root / "HAM10000_metadata",
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp",
        "HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp",
        "HAM_0000001,ISIC_0025031,akiec,histo,,unknown,unknown",
        "HAM_0000002,ISIC_0099999,nv,histo,30.0,female,back",
    )
    picture(root / "HAM10000_images_part_1" / "ISIC_0025030.jpg")
    picture(root / "HAM10000_images_part_1" / "ISIC_0025031.jpg")
    picture(root / "HAM10000_images_part_2" / "ISIC_0027419.jpg")
    mask(root / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0025030_segmentation.png")


def isic2016(root: Path) -> None:
    for name in ("ISIC_0000000", "ISIC_0000001"):
        picture(root / "ISBI2016_ISIC_Part1_Training_Data" / f"{name}.jpg")
        picture(root / "ISBI2016_ISIC_Part3_Training_Data" / f"{name}.jpg")
        mask(root / "ISBI2016_ISIC_Part1_Training_GroundTruth" / f"{name}_Segmentation.png")
    picture(root / "ISBI2016_ISIC_Part3_Test_Data" / "ISIC_0000003.jpg")
    table(
        root / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv",
        "ISIC_0000000,benign",
        "ISIC_0000001,malignant",
    )
    table(root / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv", "ISIC_0000003,1.0")


def isic2017(root: Path) -> None:
    for name in ("ISIC_0000000", "ISIC_0000001", "ISIC_0000002"):
        picture(root / "ISIC-2017_Training_Data" / f"{name}.jpg")
        picture(root / "ISIC-2017_Training_Data" / f"{name}_superpixels.png")
        mask(root / "ISIC-2017_Training_Part1_GroundTruth" / f"{name}_segmentation.png")
    picture(root / "ISIC-2017_Validation_Data" / "ISIC_0001769.jpg")
    picture(root / "ISIC-2017_Test_v2_Data" / "ISIC_0012086.jpg")
    table(
        root / "ISIC-2017_Training_Part3_GroundTruth.csv",
        "image_id,melanoma,seborrheic_keratosis",
        "ISIC_0000000,0.0,0.0",
        "ISIC_0000001,1.0,0.0",
        "ISIC_0000002,0.0,1.0",
    )
    table(
        root / "ISIC-2017_Training_Data_metadata.csv",
        "image_id,age_approximate,sex",
        "ISIC_0000000,55,female",
        "ISIC_0000001,unknown,unknown",
    )


def isic2018_task1(root: Path) -> None:
    for part, name in (("Training", "0000000"), ("Validation", "0000010"), ("Test", "0000020")):
        picture(root / f"ISIC2018_Task1-2_{part}_Input" / f"ISIC_{name}.jpg")
        truth = root / f"ISIC2018_Task1_{part}_GroundTruth"
        mask(truth / f"ISIC_{name}_segmentation.png")


def isic2018_task3(root: Path) -> None:
    header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    picture(root / "ISIC2018_Task3_Training_Input" / "ISIC_0024306.jpg")
    picture(root / "ISIC2018_Task3_Training_Input" / "ISIC_0024307.jpg")
    picture(root / "ISIC2018_Task3_Validation_Input" / "ISIC_0034321.jpg")
    truth = "ISIC2018_Task3_Training_GroundTruth"
    table(
        root / truth / f"{truth}.csv",
        header,
        "ISIC_0024306,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0024307,0.0,0.0,0.0,1.0,0.0,0.0,0.0",
    )
    table(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_0024306,HAM_0000550,single image expert consensus",
        "ISIC_0024307,HAM_0000550,single image expert consensus",
    )
    table(
        root / "ISIC2018_Task3_Validation_GroundTruth.csv",
        header,
        "ISIC_0034321,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
    )


def isic2019(root: Path) -> None:
    header = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    folder = root / "ISIC_2019_Training_Input"
    for name in ("ISIC_0000000", "ISIC_0000002_downsampled", "ISIC_0000004"):
        picture(folder / f"{name}.jpg")
    table(
        root / "ISIC_2019_Training_GroundTruth.csv",
        header,
        "ISIC_0000000,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
        "ISIC_0000002_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000004,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
    )
    table(
        root / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0000000,55.0,anterior torso,,female",
        "ISIC_0000002_downsampled,30.0,anterior torso,BCN_0001728,female",
    )
    picture(root / "ISIC_2019_Test_Input" / "ISIC_0034321.jpg")
    row = "ISIC_0034321,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0"
    table(root / "ISIC_2019_Test_GroundTruth.csv", header, row)


def isic2020(root: Path) -> None:
    for name in ("ISIC_2637011", "ISIC_0015719", "ISIC_0052212"):
        picture(root / "train" / f"{name}.jpg")
    picture(root / "test" / "ISIC_0052060.jpg")
    table(
        root / "train.csv",
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target",
        "ISIC_2637011,IP_7279968,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0015719,IP_3075186,female,45.0,upper extremity,melanoma,malignant,1",
        "ISIC_0052212,IP_2842074,female,50.0,lower extremity,nevus,benign,0",
    )
    table(
        root / "ISIC_2020_Training_Duplicates.csv",
        "image_name_1,image_name_2",
        "ISIC_2637011,ISIC_0052212",
    )


def ph2(root: Path) -> None:
    rows = []
    for name, code in (("IMD003", 0), ("IMD009", 1), ("IMD058", 2)):
        case = root / "PH2 Dataset images" / name
        picture(case / f"{name}_Dermoscopic_Image" / f"{name}.bmp")
        mask(case / f"{name}_lesion" / f"{name}_lesion.bmp")
        rows.append(f"|| {name} ||             || {code} || 0 | T | A | A | A | A || 4 5 ||")
    header = "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry || Colors ||"
    table(root / "PH2_dataset.txt", header, *rows, "", "Legends:", end="\r\n")


def pad_ufes_20(root: Path) -> None:
    table(
        root / "metadata.csv",
        "patient_id,lesion_id,fitspatrick,age,gender,region,diagnostic,biopsed,img_id,"
        "mask_source,iou_best_other",
        "PAT_1006,53,,63,,FOREARM,ACK,False,PAT_1006_53_716.jpg,a,0.191",
        "PAT_46,53,3.0,59,MALE,FACE,BCC,True,PAT_46_53_939.png,b,0.836",
        "PAT_46,881,3.0,59,MALE,FACE,SCC,True,PAT_46_881_1.png,,",
        "PAT_47,1,,40,,FACE,NEV,False,PAT_47_1_2.png,a,0.55",
    )
    picture(root / "images" / "imgs_part_1" / "PAT_1006_53_716.jpg")
    picture(root / "images" / "imgs_part_1" / "PAT_47_1_2.png")
    picture(root / "images" / "imgs_part_2" / "PAT_46_53_939.png")
    picture(root / "images" / "imgs_part_3" / "PAT_46_881_1.png")
    for name in ("PAT_1006_53_716", "PAT_46_53_939", "PAT_47_1_2"):
        mask(root / "student_masks" / f"{name}_mask.png")
        mask(root / "student_masks_second" / f"{name}_mask.png")
    mask(root / "student_masks_second" / "PAT_46_881_1_mask.png")


def med_node(root: Path) -> None:
    picture(root / "complete_mednode_dataset" / "melanoma" / "1000.jpg")
    picture(root / "complete_mednode_dataset" / "naevus" / "1000.jpg")
    picture(root / "complete_mednode_dataset" / "naevus" / "1001.jpg")


def derm7pt(root: Path) -> None:
    table(
        root / "meta" / "meta.csv",
        "case_num,diagnosis,seven_point_score,location,sex,clinic,derm,case_id",
        "1,melanoma (in situ),3,abdomen,female,NEL/NEL026.JPG,NEL/NEL027.JPG,",
        "2,clark nevus,0,back,male,Fal/Fal001.jpg,Fal/Fal002.jpg,",
        "3,seborrheic keratosis,0,back,male,Fal/Fal003.jpg,Fal/Fal004.jpg,",
    )
    table(root / "meta" / "train_indexes.csv", "indexes", "0")
    table(root / "meta" / "valid_indexes.csv", "indexes", "1")
    table(root / "meta" / "test_indexes.csv", "indexes", "2")
    for name in ("NEL/NEL026", "NEL/NEL027", *(f"Fal/Fal00{n}" for n in range(1, 5))):
        picture(root / "images" / f"{name}.jpg")


def folders(root: Path) -> None:
    picture(root / "train" / "Melanoma" / "a.jpg")
    picture(root / "train" / "Seborrheic_keratosis" / "a.png")
    picture(root / "test" / "Melanoma" / "b.jpg")


def csv_(root: Path) -> None:
    picture(root / "images" / "one.png")
    picture(root / "images" / "two.png")
    mask(root / "masks" / "one.png")
    table(
        root / "data.csv",
        "id,image,mask,diagnosis,lesion_id,patient_id,age,sex,site,skin_type,modality,licence,"
        "malignant,split",
        "one,images/one.png,masks/one.png,nv,L1,P1,41,female,back,2,Dermoscopy,CC0,,train",
        "two,images/two.png,,eczema,L2,P1,41,female,back,II,clinical,CC0,no,test",
    )


def isic_cli(root: Path) -> None:
    picture(root / "ISIC_0000000.jpg")
    picture(root / "ISIC_0000001.jpg")
    table(
        root / "metadata.csv",
        "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,"
        "diagnosis_2,diagnosis_3,diagnosis_4,fitzpatrick_skin_type,lesion_id,patient_id,sex",
        'ISIC_0000000,Anonymous,CC-0,55,posterior torso,Benign,Benign melanocytic,Nevus,"Blue",'
        "II,IL_1,IP_1,female",
        "ISIC_0000001,Anonymous,CC-BY,30,,Malignant,Malignant adnexal,,,,IL_2,IP_1,male",
    )


def isic2024(root: Path) -> None:
    for name in ("ISIC_0015670", "ISIC_0015845", "ISIC_0015864"):
        picture(root / "ISIC_2024_Training_Input" / f"{name}.jpg")
    table(
        root / "ISIC_2024_Training_GroundTruth.csv",
        "isic_id,malignant",
        "ISIC_0015670,0.0",
        "ISIC_0015845,1.0",
        "ISIC_0015864,0.0",
    )
    table(
        root / "ISIC_2024_Training_Input" / "metadata.csv",
        "isic_id,attribution,copyright_license,age_approx,sex,anatom_site_general,image_type,"
        "patient_id,lesion_id",
        "ISIC_0015670,MSK,CC-BY,60,male,lower extremity,TBP tile: close-up,IP_1235828,",
        "ISIC_0015845,MSK,CC-BY,60,male,head/neck,TBP tile: close-up,IP_8170065,IL_6727506",
        "ISIC_0015864,MSK,CC-BY,60,male,posterior torso,TBP tile: close-up,IP_6724798,",
    )
    table(
        root / "ISIC_2024_Training_Supplement.csv",
        "isic_id,iddx_full,iddx_1,iddx_2,iddx_3,iddx_4,iddx_5,mel_mitotic_index",
        "ISIC_0015670,Benign,Benign,,,,,",
        "ISIC_0015845,Malignant::Malignant melanocytic proliferations (Melanoma)::Melanoma,"
        "Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma Invasive,,,",
        "ISIC_0015864,Benign::Benign melanocytic proliferations::Nevus,Benign,"
        "Benign melanocytic proliferations,Nevus,,,",
    )


MILK_CODES = "AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC"


def milk10k(root: Path) -> None:
    lesions = {"IL_1": "SCCKA", "IL_2": "BEN_OTH", "IL_3": "MAL_OTH", "IL_4": "INF", "IL_5": "NV"}
    truth, rows = [], []
    for number, (lesion, code) in enumerate(lesions.items()):
        hot = ["1.0" if name == code else "0.0" for name in MILK_CODES.split(",")]
        truth.append(f"{lesion},{','.join(hot)}")
        for offset, kind in ((10, "dermoscopic"), (20, "clinical: close-up")):
            name = f"ISIC_{number + offset}"
            picture(root / "MILK10k_Training_Input" / lesion / f"{name}.jpg", number + offset)
            rows.append(f"{lesion},{kind},{name},CC-BY-NC,70,male,{number},head_neck_face")
    table(root / "MILK10k_Training_GroundTruth.csv", f"lesion_id,{MILK_CODES}", *truth)
    table(
        root / "MILK10k_Training_Metadata.csv",
        "lesion_id,image_type,isic_id,copyright_license,age_approx,sex,skin_tone_class,site",
        *rows,
    )


LAYOUTS = {
    "ham10000": ham10000,
    "isic2016": isic2016,
    "isic2017": isic2017,
    "isic2018_task1": isic2018_task1,
    "isic2018_task3": isic2018_task3,
    "isic2019": isic2019,
    "isic2020": isic2020,
    "isic2024": isic2024,
    "milk10k": milk10k,
    "ph2": ph2,
    "pad_ufes_20": pad_ufes_20,
    "med_node": med_node,
    "derm7pt": derm7pt,
    "folders": folders,
    "csv": csv_,
    "isic_cli": isic_cli,
    "procedural": csv_,
}


def read(name: str, root: Path):
    assert name in LAYOUTS, f"draw the layout of {name} (docs/add-data-set.md, step 3)"
    LAYOUTS[name](root)
    data_set = load(name, root)
    return data_set, {record.id: record for record in data_set.records}


def facts(data_set) -> list[tuple]:
    return [(r.id, r.label, r.official, r.mask and r.mask.name) for r in data_set.records]


def semicolons(root: Path) -> None:
    """A table of the kind that a new reader's publisher may hand out."""
    table(
        root / "data.csv",
        "image;diagnosis;lesion_id;age;site",
        "one.png;nävus;L1;41,5;back, upper",
        "two.png;melanoma;L2;;back",
        encoding="latin-1",
    )
    picture(root / "one.png")
    picture(root / "two.png")


@pytest.mark.parametrize(
    ("name", "layout"),
    [*LAYOUTS.items(), pytest.param("csv", semicolons, id="csv-semicolons")],
)
def test_a_table_that_a_spreadsheet_with_decimal_commas_saved_says_the_same(tmp_path, name, layout):
    layout(tmp_path)
    before = load(name, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.name == "ISBI2016_ISIC_Part3_Test_GroundTruth.csv":
            continue  # "ISIC_1;1,0" without a header may be of either kind, and is refused
        if path.is_file() and (path.suffix == ".csv" or "metadata" in path.name.lower()):
            lines = decode(path, path.read_bytes()).splitlines()
            delimiter = max(DELIMITERS, key=lines[0].count)  # a publisher may have another than ","
            rows = csv.reader(lines, delimiter=delimiter)
            cells = [[re.sub(r"^([0-9]+)\.([0-9]+)$", r"\1,\2", c) for c in row] for row in rows]
            table(path, *(";".join(row) for row in cells), encoding="utf-8-sig", end="\r\n")
    after = load(name, tmp_path)
    assert after.records == before.records
    assert after.problems == before.problems


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_says_the_same_whatever_its_folder_is_called(tmp_path, name):
    LAYOUTS[name](tmp_path / "data")
    before = facts(load(name, tmp_path / "data"))
    place = tmp_path / "data"
    for folder in ("melanoma", "test", "masks"):
        place = place.rename(tmp_path / folder)
        assert facts(load(name, place)) == before


def test_every_reader_has_a_layout_here():
    assert LAYOUTS.keys() == READERS.keys(), "docs/add-data-set.md, step 3"


def test_every_data_set_is_in_the_docs_as_its_reader_states_it():
    page = (Path(__file__).parents[1] / "docs" / "data-sets.md").read_text(encoding="utf-8")
    rows = [f"| `{r.name}` | {r.title} | {r.licence} | {r.layout} |" for r in READERS.values()]
    assert [row for row in rows if row not in page.splitlines()] == []


@pytest.mark.parametrize("name", READERS)
def test_reader_contract(name, tmp_path):
    inner = tmp_path / "above" / "inner"
    data_set, by_id = read(name, inner)
    assert data_set.name == name
    assert data_set.licence
    assert data_set.procedural == (name == "procedural")
    assert len(data_set.records) >= 2
    assert len(by_id) == len(data_set.records)
    assert any(record.diagnosis or record.mask for record in data_set.records)
    for record in data_set.records:
        assert record.image.is_file()
        assert record.image.is_relative_to(inner)
        assert record.mask is None or (record.mask.is_file() and record.mask != record.image)
        assert record.label is None or record.label in CLASSES
        if record.label not in (None, "other"):
            assert record.malignant == (record.label in MALIGNANT)
        assert record.sex in (None, "male", "female")
        assert record.skin_type in (None, 1, 2, 3, 4, 5, 6)
        assert record.skin_tone in (None, 0, 1, 2, 3, 4, 5)
        assert record.modality in (None, "dermoscopic", "clinical")
        assert record.age is None or 0 <= record.age <= 120
        assert record.licence
        assert record.official in (None, "train", "val", "test")
        assert record.site is None or record.site.lower() != "unknown"
    assert all(line.isprintable() for line in (*data_set.problems, *data_set.notes))
    assert load(name, inner) == data_set
    if name not in ("folders", "procedural"):  # ids of these are paths
        assert facts(load(name, tmp_path / "above")) == facts(data_set)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_without_the_layout_is_one_clear_line(name, tmp_path):
    table(tmp_path / "notes.csv", "colour,number", "red,1")
    with pytest.raises(DataError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert "looked for" in message
    with pytest.raises(DataError, match="no such folder"):
        load(name, tmp_path / "absent")


def test_ham10000(tmp_path):
    data_set, by_id = read("ham10000", tmp_path)
    assert data_set.problems == ("ISIC_0099999: its picture is missing",)
    record = by_id["ISIC_0025030"]
    assert (record.label, record.malignant, record.lesion_id) == ("bkl", False, "HAM_0000118")
    assert (record.age, record.sex, record.site) == (80.0, "male", "scalp")
    assert record.mask.name == "ISIC_0025030_segmentation.png"
    assert by_id["ISIC_0027419"].mask is None
    bare = by_id["ISIC_0025031"]
    assert (bare.label, bare.malignant) == ("akiec", True)
    assert (bare.age, bare.sex, bare.site) == (None, None, None)


def test_isic2016_names_melanoma_but_no_class_for_benign(tmp_path):
    _, by_id = read("isic2016", tmp_path)
    assert (by_id["ISIC_0000001"].label, by_id["ISIC_0000001"].malignant) == ("mel", True)
    assert (by_id["ISIC_0000000"].label, by_id["ISIC_0000000"].malignant) == (None, False)
    assert (by_id["ISIC_0000003"].label, by_id["ISIC_0000003"].official) == ("mel", "test")
    assert by_id["ISIC_0000000"].mask.name == "ISIC_0000000_Segmentation.png"


def test_isic2017(tmp_path):
    _, by_id = read("isic2017", tmp_path)
    labels = {name: (record.label, record.official) for name, record in by_id.items()}
    assert labels == {
        "ISIC_0000000": ("nv", "train"),
        "ISIC_0000001": ("mel", "train"),
        "ISIC_0000002": ("bkl", "train"),
        "ISIC_0001769": (None, "val"),
        "ISIC_0012086": (None, "test"),
    }
    assert by_id["ISIC_0000000"].age == 55
    assert by_id["ISIC_0000001"].age is None
    assert by_id["ISIC_0000001"].mask is not None


def test_isic2018(tmp_path):
    _, by_id = read("isic2018_task1", tmp_path / "1")
    assert [r.official for r in by_id.values()] == ["train", "val", "test"]
    assert all(record.mask and record.label is None for record in by_id.values())
    _, by_id = read("isic2018_task3", tmp_path / "3")
    assert {name: record.label for name, record in by_id.items()} == {
        "ISIC_0024306": "nv",
        "ISIC_0024307": "akiec",
        "ISIC_0034321": "vasc",
    }
    assert by_id["ISIC_0024306"].lesion_id == by_id["ISIC_0024307"].lesion_id == "HAM_0000550"


def test_isic2019(tmp_path):
    _, by_id = read("isic2019", tmp_path)
    assert by_id["ISIC_0000000"].label == "scc"
    assert by_id["ISIC_0000002_downsampled"].label == "mel"
    assert by_id["ISIC_0000002_downsampled"].lesion_id == "BCN_0001728"
    assert by_id["ISIC_0000004"].label == "akiec"
    assert (by_id["ISIC_0034321"].label, by_id["ISIC_0034321"].official) == ("other", "test")


def test_isic2020_uses_its_own_flag_where_the_diagnosis_is_unknown(tmp_path):
    data_set, by_id = read("isic2020", tmp_path)
    assert (by_id["ISIC_2637011"].label, by_id["ISIC_2637011"].malignant) == (None, False)
    assert by_id["ISIC_0015719"].label == "mel"
    assert by_id["ISIC_0015719"].patient_id == "IP_3075186"
    assert by_id["ISIC_0052060"].official == "test"
    assert data_set.same == (("ISIC_2637011", "ISIC_0052212"),)


def test_ph2(tmp_path):
    _, by_id = read("ph2", tmp_path)
    assert {name: (r.diagnosis, r.label) for name, r in by_id.items()} == {
        "IMD003": ("common nevus", "nv"),
        "IMD009": ("atypical nevus", "nv"),
        "IMD058": ("melanoma", "mel"),
    }
    assert by_id["IMD003"].mask.name == "IMD003_lesion.bmp"


def test_a_mask_of_its_pictures_name_is_not_taken_for_it(tmp_path):
    ham10000(tmp_path)
    for name in ("ISIC_0025030", "ISIC_0027419", "ISIC_0099999"):
        mask(tmp_path / "Ground_Truth" / f"{name}.png")
    found = load("ham10000", tmp_path)
    folders = {record.image.parent.name for record in found.records}
    assert folders == {"HAM10000_images_part_1", "HAM10000_images_part_2"}
    assert found.problems == ("ISIC_0099999: its picture is missing",)


def test_pad_ufes_20_trusts_only_masks_on_which_students_agreed(tmp_path):
    _, by_id = read("pad_ufes_20", tmp_path)
    first, second, third, fourth = by_id.values()
    assert (first.label, first.mask, first.sex, first.skin_type) == ("akiec", None, None, None)
    assert second.mask.parent.name == "student_masks"
    assert second.second_mask.parent.name == "student_masks_second"
    assert first.second_mask is None
    # Where they agree somewhat, what both drew is there to learn from alone.
    assert (fourth.mask, fourth.second_mask) == (None, None)
    drawn = [[path.parent.name for path in record.outlines] for record in by_id.values()]
    both = ["student_masks", "student_masks_second"]
    assert drawn == [[], both, [], both]
    # A second student alone has nobody who agreed.
    assert third.mask is None
    assert (second.sex, second.skin_type, second.age) == ("male", 3, 59)
    assert third.label == "scc"
    assert first.lesion_id != second.lesion_id, "lesion number 53 of two patients"


def test_med_node_and_derm7pt(tmp_path):
    _, by_id = read("med_node", tmp_path / "m")
    assert {name: r.label for name, r in by_id.items()} == {
        "melanoma_1000": "mel",
        "naevus_1000": "nv",
        "naevus_1001": "nv",
    }
    _, by_id = read("derm7pt", tmp_path / "d")
    assert len(by_id) == 6
    assert by_id["1_derm"].lesion_id == by_id["1_clinic"].lesion_id
    assert by_id["1_derm"].image.name == "NEL027.jpg", "the table writes .JPG"
    assert [by_id[f"{n}_derm"].official for n in (1, 2, 3)] == ["train", "val", "test"]
    assert [by_id[f"{n}_derm"].label for n in (1, 2, 3)] == ["mel", "nv", "bkl"]


def test_folders_of_kaggle_dermofit_and_sd198(tmp_path):
    _, by_id = read("folders", tmp_path / "kaggle")
    assert (by_id["train/Melanoma/a"].label, by_id["train/Melanoma/a"].official) == ("mel", "train")
    assert by_id["test/Melanoma/b"].official == "test"

    picture(tmp_path / "dermofit" / "IEC" / "P1" / "P1.png")
    mask(tmp_path / "dermofit" / "IEC" / "P1" / "P1mask.png")
    picture(tmp_path / "dermofit" / "ML" / "A2" / "A2.png")
    iec, mole = load("folders", tmp_path / "dermofit").records
    assert (iec.label, iec.diagnosis, iec.mask.name) == ("akiec", "IEC", "P1mask.png")
    assert (mole.label, mole.mask) == ("nv", None)
    assert iec.lesion_id != mole.lesion_id

    picture(tmp_path / "sd198" / "images" / "Acne_Vulgaris" / "1.jpg")
    picture(tmp_path / "sd198" / "images" / "Blue_Nevus" / "1.jpg")
    labels = {r.id: r.label for r in load("folders", tmp_path / "sd198").records}
    assert labels == {"images/Acne_Vulgaris/1": "other", "images/Blue_Nevus/1": "nv"}

    picture(tmp_path / "flags" / "benign" / "1.jpg")
    picture(tmp_path / "flags" / "malignant" / "1.jpg")
    flags = [(r.label, r.malignant) for r in load("folders", tmp_path / "flags").records]
    assert flags == [(None, False), (None, True)], "no class, only malignant or not"


def test_isic_cli_takes_the_finest_diagnosis_and_each_pictures_licence(tmp_path):
    data_set, by_id = read("isic_cli", tmp_path)
    assert data_set.licence == "CC-0; CC-BY"  # a bundle has no column to look it up in
    nevus, adnexal = by_id["ISIC_0000000"], by_id["ISIC_0000001"]
    assert (nevus.diagnosis, nevus.label, nevus.skin_type) == ("Blue", "nv", 2)
    assert (nevus.licence, adnexal.licence) == ("CC-0", "CC-BY")
    # Basal cell carcinomas are among the adnexal ones: malignant, and no more is known.
    assert (adnexal.label, adnexal.malignant) == (None, True)


def test_isic_cli_takes_sites_as_the_archive_states_them_today_and_before(tmp_path):
    sites = {
        "Lower extremity,Foot,Sole of foot,Arch of foot,,": "palms/soles",
        "Head and neck,Head,Ear,Pinna,Helix of pinna,": "head/neck",
        "Upper extremity,,,,,nail NOS": "upper extremity",
        ",,,,,": None,
    }
    rows = [f"ISIC_{n},Nevus,{cells}" for n, cells in enumerate(sites)]
    levels = ",".join(f"anatom_site_{level}" for level in range(1, 6))
    table(tmp_path / "m.csv", f"isic_id,diagnosis_1,{levels},anatom_site_special", *rows)
    for number in range(len(sites)):
        picture(tmp_path / f"ISIC_{number}.jpg", number)
    found = load("isic_cli", tmp_path)
    assert [region(record.site) for record in found.records] == [*sites.values()]
    assert not any("site" in line for line in found.notes)


def test_isic_cli_leaves_confocal_microscopy_out_and_says_so(tmp_path):
    kinds = ("dermoscopic", "RCM: macroscopic", "RCM: tile", "RCM: mosaic", "TBP tile: close-up")
    rows = [f"ISIC_{number},Melanoma,{kind}" for number, kind in enumerate(kinds)]
    table(tmp_path / "metadata.csv", "isic_id,diagnosis_3,image_type", *rows)
    for number in range(len(kinds)):
        picture(tmp_path / f"ISIC_{number}.jpg", number)
    found = load("isic_cli", tmp_path)
    assert [record.modality for record in found.records] == ["dermoscopic", None, "clinical"]
    assert "confocal microscopy (RCM: tile, RCM: mosaic), not used: 2" in found.notes


def test_csv_never_leaves_its_folder(tmp_path):
    outside = picture(tmp_path / "outside.png")
    picture(tmp_path / "in" / "inside.png")
    rows = ["inside.png", "../outside.png", str(outside), "a/../../outside.png", "..\\outside.png"]
    table(tmp_path / "in" / "data.csv", "image,mask", *(f"{r},../outside.png" for r in rows))
    data_set = load("csv", tmp_path / "in")
    assert [(r.id, r.mask) for r in data_set.records] == [("inside", None)]
    assert len(data_set.problems) == 5
    assert all("leaves the data set" in problem for problem in data_set.problems)
    assert all("put the table into a folder above" in problem for problem in data_set.problems)


def test_drawn_pictures_are_marked_under_either_name(tmp_path):
    write_data_set(tmp_path, 10, size=(64, 80))
    for name in ("procedural", "csv"):
        data_set = load(name, tmp_path)
        assert data_set.procedural
        assert data_set.problems == ()
        assert len(data_set.records) == 10
        assert all(r.mask and r.label and r.lesion_id and r.patient_id for r in data_set.records)
        assert all("procedural" in r.licence for r in data_set.records)


def test_links_are_followed_once(tmp_path):
    picture(tmp_path / "elsewhere" / "naevus" / "1.png")
    picture(tmp_path / "set" / "melanoma" / "1.png")
    (tmp_path / "set" / "naevus").symlink_to(tmp_path / "elsewhere" / "naevus")
    (tmp_path / "set" / "melanoma" / "loop").symlink_to(tmp_path / "set")
    labels = [record.label for record in load("folders", tmp_path / "set").records]
    assert labels == ["mel", "nv"]


def test_malformed_cells_are_problems_not_crashes(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    file = table(
        tmp_path / "list.csv",
        "image,age,sex,skin_type,split,diagnosis",
        "a.png,abc,robot,9,,naevus",
        "b.png,-3,F,type IV,valid,",
        "c.png,,,,,",
        "missing.png,40,m,1,train,nv",
    )
    data_set = load("csv", file)
    a, b, c = data_set.records
    assert (a.age, a.sex, a.skin_type, a.official, a.label) == (None, None, None, None, "nv")
    assert (b.age, b.sex, b.skin_type, b.official, b.label) == (None, "female", 4, "val", None)
    assert (c.age, c.sex, c.label) == (None, None, None)
    told = " | ".join(data_set.problems)
    for part in ("'abc'", "'robot'", "'9'", "'-3'", "missing.png"):
        assert part in told
    assert len(data_set.problems) == 5


def test_a_table_says_how_a_picture_was_taken(tmp_path):
    csv_(tmp_path)
    assert [r.modality for r in load("csv", tmp_path).records] == ["dermoscopic", "clinical"]
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    table(tmp_path / "data.csv", "image,modality", "a.png,", "b.png,ultrasound")
    with pytest.raises(DataError, match="modality 'ultrasound' is not dermoscopic or clinical"):
        load("csv", tmp_path)
    table(tmp_path / "data.csv", "image,modality", "a.png,", "b.png,unknown")
    assert [r.modality for r in load("csv", tmp_path).records] == [None, None]


@pytest.mark.parametrize(
    ("encoding", "end", "comma"),
    [("utf-8-sig", "\r\n", ","), ("latin-1", "\n", ";"), ("utf-16", "\r\n", "\t")],
)
def test_tables_as_spreadsheets_write_them(tmp_path, encoding, end, comma):
    picture(tmp_path / "a.png")
    lines = [line.replace(",", comma) for line in ("Image,Site", "a.png,rücken")]
    table(tmp_path / "data.csv", *lines, encoding=encoding, end=end)
    assert load("csv", tmp_path).records[0].site == "rücken"


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_as_table_give_records_or_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bytes")
    picture(folder / "a.png")
    for content in (data, b"id,image,mask,age,diagnosis\n" + data + b"\nz,a.png,,5,nv\n"):
        (folder / "data.csv").write_bytes(content)
        told = ""
        try:
            found = load("csv", folder)
            assert all(record.image == folder / "a.png" for record in found.records)
            told = "".join([*found.problems, *found.notes])
        except DataError as error:
            told = str(error)
        assert told.isprintable()


def test_names_are_taken_in_any_spelling():
    assert parse_source("HAM10000=a/b") == ("ham10000", Path("a/b"))
    assert parse_source("pad-ufes-20=x=y") == ("pad_ufes_20", Path("x=y"))
    assert parse_source("ISIC2018-Task3=x")[0] == "isic2018_task3"
    for text in ("ham10000", "=x", "ham10000=", "isic1999=x"):
        with pytest.raises(DataError):
            parse_source(text)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("ACK", "akiec"),
        ("Bowen's disease", "akiec"),
        ("Squamous cell carcinoma in situ", "akiec"),
        ("Squamous cell carcinoma, Invasive", "scc"),
        ("SEK", "bkl"),
        ("seborrheic keratosis", "bkl"),
        ("solar lentigo", "bkl"),
        ("lichenoid", "bkl"),
        ("Benign keratosis-like lesions", "bkl"),
        ("melanoma metastasis", "mel"),
        ("melanoma (in situ)", "mel"),
        ("lentigo maligna", "mel"),
        ("clark nevus", "nv"),
        ("Nevus, Atypical, Dysplastic, or Clark", "nv"),
        ("melanocytic nevi", "nv"),
        ("Haemangioma", "vasc"),
        ("Nevus_Flammeus", "vasc"),
        # What must not be taken for a class by a word in it:
        ("lentigo", "other"),
        ("nonmelanoma", "other"),
        ("Nevus_Sebaceous", "other"),
        ("dermatofibrosarcoma", "other"),
        ("Malignant soft tissue proliferations - Vascular", "other"),
        ("Melanoma Skin Cancer Nevi and Moles", "other"),
        ("Actinic Keratosis Basal Cell Carcinoma and other Malignant Lesions", "other"),
        ("eczema", "other"),
        ("", "other"),
    ],
)
def test_taxonomy(words, name):
    assert (interpret(words).label or "other") == name


# --- dermedge data check -------------------------------------------------------------------


def smooth(path: Path, seed: int, offset: int = 0) -> None:
    """A picture with large shapes, so that a small change leaves it a near-duplicate."""
    coarse = np.random.default_rng(seed).integers(30, 220, (6, 8, 3), np.uint8)
    pixels = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.add(pixels, (offset, offset, offset, 0)))


def faulty_set(root: Path) -> None:
    for name, seed, offset in (("a", 1, 0), ("b", 1, 8), ("c", 2, 0), ("d", 2, 0), ("e", 3, 0)):
        smooth(root / f"{name}.png", seed, offset)
    (root / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    mask(root / "m_small.png", (96, 100))
    cv2.imwrite(str(root / "m_full.png"), np.full((96, 128), 255, np.uint8))
    cv2.imwrite(str(root / "m_empty.png"), np.zeros((96, 128), np.uint8))
    table(
        root / "data.csv",
        "image,mask,diagnosis,lesion_id,patient_id",
        "a.png,m_small.png,nv,L1,P1",
        "b.png,m_full.png,nv,L2,P2",
        "c.png,m_empty.png,mel,L3,P3",
        "d.png,,mel,L3,P3",
        "e.png,,bkl,L4,P4",
        "cut.jpg,,nv,L5,P5",
        "gone.png,,nv,L6,P6",
    )


def command(*words: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    arguments(parser)
    return run(parser.parse_args(["check", *words]))


def test_check_finds_what_is_amiss(tmp_path):
    faulty_set(tmp_path)
    report = check(load("csv", tmp_path), progress=False)
    assert report.pictures == 6
    assert report.classes == {"bkl": 1, "mel": 2, "nv": 3}
    assert report.sizes == {"128x96": 5}
    assert report.unreadable.keys() == {"cut"}
    assert len(report.problems) == 1
    assert "gone.png" in report.problems[0]
    told = report.mask_problems
    assert told.keys() == {"a", "b", "c"}
    assert told["a"] == "mask is 100x96, picture 128x96"
    assert "100.00%" in told["b"]
    assert "0.00%" in told["c"]
    assert report.repeated_lesions == {"L3": 2}
    assert report.repeated_patients == {"P3": 2}
    assert report.identical_files == [["c", "d"]]
    assert report.near_duplicates == [["a", "b"]], "c and d are one lesion already"
    kept = check(load("csv", tmp_path), same=[("a", "b")], progress=False)
    assert kept.near_duplicates == []
    assert report.contradictions == []
    rows = (tmp_path / "data.csv").read_text()
    (tmp_path / "data.csv").write_text(rows.replace("d.png,,mel", "d.png,,bkl"))
    wrong = check(load("csv", tmp_path), progress=False)
    assert wrong.contradictions == ["c = d: mel, bkl", "lesion L3: mel, bkl"]
    wrong = check(load("csv", tmp_path), same=[("b", "d"), ("b", "nowhere")], progress=False)
    assert "b = d: nv, bkl" in wrong.contradictions


@pytest.mark.parametrize(("malignant", "said"), [(False, []), (True, ["lesion L: nv, malignant"])])
def test_benign_does_not_contradict_nevus(malignant, said):
    known = Record("a", Path("a"), label="nv", malignant=False, lesion_id="L")
    other = replace(known, id="b", label=None, malignant=malignant)
    assert _contradictions([known, other, replace(other, id="c", malignant=None)], []) == said


def test_check_writes_one_json_object_and_the_split(tmp_path, capsys):
    faulty_set(tmp_path)
    file = tmp_path / "new" / "split.json"
    pairs = table(tmp_path / "pairs.csv", "id_a,id_b", "a,b", "a,nowhere")
    source = f"csv={tmp_path / 'data.csv'}"
    assert command(source, "--split", str(file), "--same", str(pairs), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    split = Split.load(file)
    assert told["split"]["sha256"] == split.sha256
    assert told["split"]["written"] is True
    named = [name for ids in split.parts.values() for name in ids]
    assert sorted(named) == ["a", "b", "c", "d", "e"], "the unreadable one is left out"
    assert len(split.notes) == 1
    assert any({"a", "b"} <= set(ids) for ids in split.parts.values())


def test_pairs_may_be_file_names_and_are_refused_where_none_is_known(tmp_path, capsys):
    for number in range(8):
        smooth(tmp_path / "nv" / f"{number}.png", number)
    words = (f"folders={tmp_path}", "--split", str(tmp_path / "split.json"), "--same")
    pairs = table(tmp_path / "pairs.csv", "id_a,id_b", "nv/0.png,nv\\5.png", "nv/0,nv/7")
    assert command(*words, str(pairs), "--json") == 0
    assert json.loads(capsys.readouterr().out)["groups"] == 6
    pairs = table(tmp_path / "pairs.csv", "id_a,id_b", "0.png,5.png", "ISIC_1,nv/2")
    with pytest.raises(DataError, match=r"first has 0.png, 5.png, an id here is nv/0$"):
        command(*words, str(pairs))


def test_a_frozen_split_stays_frozen(tmp_path, capsys):
    for number in range(12):
        smooth(tmp_path / "nv" / f"{number}.png", number)
    file = tmp_path / "split.json"
    words = (f"folders={tmp_path}", "--split", str(file))
    assert command(*words) == 0
    first = file.read_bytes()
    assert command(*words) == 0, "the same split may be stored again"
    capsys.readouterr()
    assert command(*words, "--seed", "1") == 1
    printed = capsys.readouterr()
    assert "a different split is frozen" in printed.err.splitlines()[-1]
    assert file.read_bytes() == first
    file.write_text("{}")
    assert command(*words) == 1, "nor is a file that is no split overwritten"
    assert command(*words, "--seed", "1", "--force") == 0
    assert Split.load(file).seed == 1


def test_default_place_of_the_split(tmp_path, monkeypatch, capsys):
    smooth(tmp_path / "data" / "melanoma" / "1.png", 1)
    smooth(tmp_path / "data" / "naevus" / "1.png", 2)
    monkeypatch.chdir(tmp_path)
    assert command("MED-NODE=data") == 0
    assert Split.load("med_node.split.json").data_set == "med_node"
    printed = capsys.readouterr().out
    assert "not a diagnosis" in printed
    assert "mel 1, nv 1" in printed


# --- the real data sets --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "labels", "masks"),
    [
        (
            "ham10000",
            "HAM10000",
            {
                "nv": 6705,
                "mel": 1113,
                "bkl": 1099,
                "bcc": 514,
                "akiec": 327,
                "vasc": 142,
                "df": 115,
            },
            10015,
        ),
        ("isic2017", "ISIC2017", {"nv": 1372, "mel": 374, "bkl": 254, None: 150}, 2150),
        (
            "pad_ufes_20",
            "PAD-UFES-20",
            {"bcc": 216, "nv": 174, "akiec": 133, "bkl": 104, "mel": 38, "scc": 26},
            322,
        ),
        (
            "isic2018_task3",
            "ISIC2018_Task3_Validation",
            {"nv": 123, "bkl": 22, "mel": 21, "bcc": 15, "akiec": 8, "vasc": 3, "df": 1},
            0,
        ),
        (
            "milk10k",
            "MILK10k",
            {
                "bcc": 4998,
                "nv": 1318,
                "bkl": 1040,
                "scc": 946,
                "mel": 820,
                "akiec": 600,
                "other": 206,
                "df": 96,
                "vasc": 84,
            },
            0,
        ),
        ("isic2020", "ISIC2020", {"mel": 543, None: 409, "nv": 103, "bkl": 1}, 0),
    ],
)
def test_real_data_set(shared_data, name, folder, labels, masks):
    if not (shared_data / folder).is_dir():
        pytest.skip(f"{folder} is not in {shared_data}")
    data_set = load(name, shared_data / folder)
    assert data_set.problems == ()
    assert Counter(record.label for record in data_set.records) == labels
    assert sum(record.mask is not None for record in data_set.records) == masks
    if name == "ham10000":
        assert len({record.lesion_id for record in data_set.records}) == 7470
    if name == "isic2017":
        parts = Counter(record.official for record in data_set.records)
        assert parts == {"train": 2000, "val": 150}


def test_one_file_stored_twice_is_never_learnt_and_tested(tmp_path, capsys):
    """Twins without any lesion id: only their bytes tell."""
    rng = np.random.default_rng(0)
    rows = ["id,image,diagnosis"]
    for number in range(30):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        content = cv2.imencode(".png", pixels)[1].tobytes()
        for twin in "ab":
            (tmp_path / f"{number}{twin}.png").write_bytes(content)
            rows.append(f"{number}{twin},{number}{twin}.png,nv")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    assert main(["data", "check", f"csv={tmp_path}", "--split", str(tmp_path / "s.json")]) == 0
    parts = Split.load(tmp_path / "s.json").parts
    assert all(parts.values())
    for ids in parts.values():
        assert all(name[:-1] + twin in ids for name in ids for twin in "ab")


def test_a_data_set_without_a_readable_picture_gets_no_split(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "data.csv").write_text("image\na.png\n")
    assert main(["data", "check", f"csv={tmp_path}", "--split", str(tmp_path / "s.json")]) == 2
    assert "no picture can be read" in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("place", ["", "data.csv/s.json", "data.csv/in/s.json"])
def test_a_place_where_no_split_can_be_stored_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys, place
):
    """Every picture was read before, and the report was lost with the split."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "data.csv").write_text("image\na.png\n")
    monkeypatch.setattr("dermedge.data.check.check", lambda *_: pytest.fail("it was begun"))
    assert main(["data", "check", f"csv={tmp_path}", "--split", str(tmp_path / place)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert str(tmp_path) in printed
