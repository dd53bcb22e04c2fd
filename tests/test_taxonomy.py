"""Diagnosis words of seven languages: placed in a class where they name one, and only there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge.taxonomy import CLASSES, MALIGNANT, interpret

WORDS = {
    "mel": (
        "Melanom; mélanome; MELANOMA; malignant melanoma; malignes Melanom; "
        "Superfiziell spreitendes Melanom; melanoma in situ; Lentigo maligna; "
        "Lentigo-maligna-Melanom; SSM; melanoma maligno; mélanomes; melanomas; "
        "lentigo maligne; nodular_melanoma; Melanoma metastasis; 2. Melanoma 15.75k; "
        "Melanoma Invasive; acral lentiginous melanoma; amelanotic melanoma; "
        "melanoma (less than 0.76 mm); MEL; Akral-lentiginöses Melanom; mélanose de Dubreuilh; "
        "lentigo malin de Dubreuilh; a confirmed melanoma; a definite melanoma; "
        "Mélanome malin de la peau, sans précision; Melanom o.n.A.; "
        "Melanoma maligno de piel, sitio no especificado; lentigo malin"
    ),
    "bcc": (
        "Basalzellkarzinom; BCC nodular; nodular BCC; Basaliom; basalioma; "
        "carcinome basocellulaire; carcinoma basocelular; carcinoma basocellulare; "
        "carcinoma de células basales; basal-cell carcinoma; Basal cell carcinomas; BCC; "
        "4. Basal Cell Carcinoma (BCC) 3323; épithélioma basocellulaire; rodent ulcer; "
        "high-risk BCC; basal cell carcinoma, low risk; "
        "Basalzellkarzinome; carcinoma de células basais; Carcinoma basocellulare nodulare; "
        "basal cell ca; CBC; Basalzell-Ca; Basalzell-Karzinom; basosquamous carcinoma; "
        "Baso-squamous carcinoma; CBC nodular; CBC, superficial; "
        "carcinome baso-cellulaire; basosquamous; Pinkus-Tumor; fibroepithelioma of Pinkus; "
        "BCCs; BCCs nodular; tumeur de Pinkus"
    ),
    "scc": (
        "Plattenepithelkarzinom; Spinaliom; carcinome épidermoïde; carcinoma espinocelular; "
        "carcinoma escamocelular; carcinoma de células escamosas; carcinoma spinocellulare; "
        "carcinoma squamocellulare; squamous cell carcinoma; SCC; keratoacanthoma; "
        "Keratoakanthom; queratoacantoma; ceratoacantoma; cheratoacantoma; kératoacanthome; "
        "KA; SCC invasive; Squamous cell carcinoma, Invasive; carcinome spinocellulaire; "
        "carcinoma epidermoide; carcinoma espino-celular; Plattenepithel-Ca; "
        "Stachelzell-Karzinom; spinozelluläres Karzinom; SCC is invasive"
    ),
    "akiec": (
        "SCC in situ; squamous cell carcinoma in situ; Morbus Bowen; M. Bowen; "
        "maladie de Bowen; enfermedad de Bowen; doença de Bowen; Bowen's disease; "
        "actinic keratosis; actinic keratoses; aktinische Keratose; Aktinische Keratosen; "
        "kératose actinique; queratosis actínica; cheratosi attinica; queratose actínica; "
        "ceratose actínica; solar keratosis; keratosis actinica; solare Keratose; "
        "Solar or actinic keratosis; AK; ACK; AKIEC; Plattenepithelkarzinom in situ; "
        "carcinoma espinocelular in situ; intraepidermal carcinoma; SCCIS; Lichtkeratose; "
        "keratosis solaris; aktin. Keratose; act. keratosis; kératose solaire; aktinik keratoz; "
        "erythroplasia of Queyrat; Keratoma actinicum; aktinisk keratos; rogowacenie słoneczne; "
        "choroba Bowena; aurinkokeratoosi; solkeratoser; zonnekeratose; "
        "rogowacenia słoneczne; cheratoză actinică; Bowen's, histologically confirmed; "
        "SCC-IS; SCC is, left hand; AKs; SCCs in situ; Bowen&#39;s disease"
    ),
    "bkl": (
        "keratosis seborrheic; seborrheic keratosis; Seborrheic_Keratoses; "
        "seborrhoische Keratose; Seborrhoische Keratosen; kératose séborrhéique; "
        "queratosis seborreica; cheratosi seborroica; queratose seborreica; "
        "ceratose seborreica; seborrhoeic keratosis; keratosis seborrhoica; solar lentigo; "
        "lentigo solaris; lentigo senilis; lentigo solar; Benign keratosis-like lesions; "
        "pigmented benign keratosis; lichen planus-like keratosis; Alterswarze; "
        "verruca seborrhoica; seborrhoische Warze; BKL; SEK; lichenoid keratosis; "
        "6. Benign Keratosis-like Lesions (BKL) 2624; Lichen planus like keratosis; "
        "seborrheic keratosis, irritated; verruca senilis; lentigo solaire; seboreik keratoz; "
        "Keratoma seborrhoicum; seborroisk keratos; seborrhoiske keratoser; ouderdomswratten; "
        "alderdomsvorte; rasvaluomi; rogowacenie łojotokowe; brodawka łojotokowa; melanose solar; "
        "brodawka starcza; Seb. Warze; SebK; seb. K.; solární lentigo; "
        "brodawki łojotokowe; seboroická veruka; Other seborrheic keratosis; "
        "L82.1 Other seborrheic keratosis; Papilloma basocellulare; basal cell papilloma; "
        "papiloma de células basales; Altersflecken; liver spot; dermatosis papulosa nigra"
    ),
    "df": (
        "Dermatofibrom; dermatofibroma; dermatofibromas; dermatofibrome; Histiozytom; "
        "histiocytofibrome; benign fibrous histiocytoma; DF; dermatofibroom; histiocytom; "
        "włókniaki twarde; histiocytoom"
    ),
    "nv": (
        "N&#228;vus; Nävus stellenweise atypisch; compound nevus, verrucous; "
        "nevo melanocítico; naevocellularer Naevus; Nävus; Naevus; nevus; nevi; naevi; "
        "Nävuszellnävus; Muttermal; grain de beauté; nævus; nævi; lunar; nevo; nevos; mole; "
        "moles; dysplastic nevus; Dysplastischer Nävus; Spitz nevus; Spitz-Nävus; "
        "Spitznävus; blue nevus; blauer Nävus; nevo displásico; nevo azul; nevo atipico; "
        "Nevus, Atypical, Dysplastic, or Clark; reed or spitz nevus; halo nevus; "
        "5. Melanocytic Nevi (NV) - 7970; junctional nevus; Compoundnävus; NV; NEV; "
        "clark nevus; naevus naevocellularis; nevus benign; Nevus, NOS, Compound; moedervlek; "
        "goedaardige moedervlekken; benler; displastik ben; znamię barwnikowe; "
        "['Nevus', 'Melanocytic Nevus']; ['Nevus']; "
        "znamię skórne melanocytowe; pieprzyk; neo di Spitz; nei comuni; neo pigmentato; "
        "modermærke; føflekker; födelsemärke; luomi; anyajegy; madež; aluniță; tahi lalat; "
        "nevüsler; névy; nævuser; naevussen; nevukset; névuszok; Melanozytennävus des Rumpfes; "
        "Melanocytnevus på bålen; A törzs melanocyta naevusa; Intradermalnävus; Clarknävus; "
        "pigmenttiluomi"
    ),
    "vasc": (
        "Hämangiom; Haemangiom; hemangioma; hémangiome; angioma; emangioma; Angiokeratom; "
        "angiokeratoma; pyogenic granuloma; granuloma piógeno; granulome pyogénique; "
        "naevus flammeus; Feuermal; Nevus_Flammeus; vascular lesion; vascular lesions; "
        "lesión vascular; lésion vasculaire; lesione vascolare; lesão vascular; "
        "vaskuläre Läsion; cherry angioma; VASC; port-wine stain; cherry hemangiomas; "
        "blue rubber bleb nevus; angioom; hemangiooma; anjiyom; vasküler lezyon; vaskulær læsjon; "
        "vasculaire laesie; wijnvlek; naczyniak; zmiana naczyniowa; "
        "hemanjiyomlar; mancha vinho do porto; punto rubí; nevo rubi; tache rubis; ponto rubi; "
        "naevus simplex; Naevus teleangiectaticus; lago venoso; lac veineux; "
        "vascular malformation; malformation capillaire; kapilläre Malformation; stork bite; VASCs"
    ),
    "other": (
        "eczema; Acne_Vulgaris; lentigo; Nevus_Sebaceous; dermatofibrosarcoma; "
        "Merkel cell carcinoma; psoriasis; melanosis; porokeratosis; wart; nevo sebaceo; "
        "keratosis pilaris; lymphangioma; Malignant soft tissue proliferations - Vascular; "
        "epidermoid cyst; seborrheic dermatitis; 1. Eczema 1677; lipoma; "
        "Atypical melanocytic proliferation; becker nevus; Becker's_Nevus; Becker-Nävus; "
        "naevus of Becker; white sponge nevus; nevus unius lateris; bliznowiec; Talgdrüsennävus; "
        "fibroma mole; fibromas moles; nevo despigmentado; achromic nevus; comedo naevus; "
        "anaemic naevus; glomus tumor; mancha mongólica; fibrous papule; tumeur glomique; "
        "Naevus verrucosus; naevus verruqueux; nevo verrugoso; organoid nevus; "
        "taches de rousseur; mancha de café con leche"
    ),
    None: (
        "pseudomelanoma; no melanoma; kein Melanom; melanoma excluded; "
        "Melanom ausgeschlossen; suspected melanoma; V.a. Melanom; Verdacht auf Melanom; "
        "nevus vs melanoma; nevus vs. melanoma; rule out BCC; r/o BCC; ?melanoma; melanoma?; "
        "non-melanoma; nonmelanoma; not a nevus; possible melanoma; mélanome suspect; "
        "sospecha de melanoma; sin melanoma; pas de mélanome; no es melanoma; não melanoma; "
        "senza melanoma; nevus or melanoma; nevus/melanoma; "
        "Melanoma Skin Cancer Nevi and Moles; "
        "Actinic Keratosis Basal Cell Carcinoma and other Malignant Lesions; melnoma; "
        "melanoam; Melanomma; keratosis; benign; malignant; gutartig; bösartig; skin cancer; "
        "carcinoma; 0; 1; 3.0; class 3; label_2; MM; IL_0000652; "
        "Seborrheic Keratoses and other Benign Tumors; melanoma or scar; benign melanoma; "
        "malignant nevus; melanoma-like; basal cell nevus syndrome; меланома; 黑色素瘤; "
        "melanoma scar; melanoma mimic; likely nevus; unlikely melanoma; Ausschluss Melanom; "
        "esclusione melanoma; nevus, DD melanoma; melanoma free; Verdacht auf BCC; "
        "carcinoma in situ; antimelanoma; family history of melanoma; sospetto melanoma; "
        "suspeita de melanoma; D22.5; ICD-10 D03.9; cSCC; sq cell ca; MM in situ; NMSC; "
        "basal cell; actinic kerat.; melan.; épithélioma; bazal hücreli karsinom; czerniak; "
        "basaalcelcarcinoom; melanom şüphesi; melanom değil; geen melanoma; malign; "
        "cancro della pelle; cancro da pele; huidkanker; hudkræft; ihosyöpä; rak skóry; bőrrák; "
        "rakovina kůže; kanser; karsinoma; kwaadaardig; złośliwy; kötü huylu; "
        "naevus, czerniak; dysplastische naevus / melanoom; nevus, carcinome; nevus, rak skóry; "
        "kwaadaardige moedervlek; geen moedervlek; znamię złośliwe barwnikowe; znamię; ben; pinta; "
        "znamię barwnikowe, podejrzenie czerniaka; moedervlek, melanoom niet uitgesloten; sinal; "
        "['Eczema', 'Melanocytic Nevus']; {'Melanoma': 0.41, 'Eczema': 0.41}; "
        "#NV; #nv; #WERT!; #BEZUG!; "
        "Vd. auf Melanom; Verd. Melanom; va Melanom; Ausschl. BCC; a.e. BCC; wohl Nävus; "
        "Melanom negativ; Vorstufe Melanom; Familienanamnese Melanom; fragl. Melanom; "
        "mögl. Melanom; evtl. Melanom; wahrsch. Melanom; Zn BCC; St. n. Melanom; "
        "Status nach Melanom; Melanom nicht auszuschl.; vereinbar mit Melanom; "
        "compatible con melanoma; compatible avec mélanome; évocateur de mélanome; "
        "compatibile con melanoma; sugestivo de melanoma; suggestive of BCC; sosp. melanoma; "
        "antecedentes de melanoma; ATCD mélanome; mélanome éventuel; esiti di melanoma; "
        "pregresso melanoma; negativo para melanoma; previous BCC; concerning for BCC; "
        "equivocal melanoma; melanoma precursor; follow-up melanoma; Präkanzerose; "
        "melanocytic lesion; atypische melanozytäre Läsion; lesión pigmentada; Pigmentläsion; "
        "lésion mélanocytaire; Hauttumor; "
        "unknown; Unsorted; unlabeled; pending; unbekannt; desconocido; Histologie ausstehend; "
        "New folder; pendiente; awaiting histology; Histo folgt; siehe Befund; ignorado; "
        "punch biopsy; biyopsi bekleniyor; en cours; à confirmer; em análise; da definire; "
        "excised; afventer svar; histopathology; Patoloji; "
        "melanoma, to be confirmed; nondiagnostic; Exzisionsbiopsie; wynik oczekuje; okänd; "
        "Basalzellkarzinomverdacht; Nävusverdacht; Basalzellkarzinomnarbe; metastasenfrei; "
        "Plattenepithelkarzinomvorstufe; Basalzellkarzinomnachsorge; "
        "Nachsorge Melanom; Kontrolle bei Melanom; Verlaufskontrolle BCC; Melanom vor 5 Jahren; "
        "Nachexzision Melanom; re-excision melanoma; melanoma screening; melanoma 5 years ago; "
        "familiäre Belastung: Melanom; suivi mélanome; mélanome il y a 3 ans; control de melanoma; "
        "seguimiento de melanoma; controllo melanoma; acompanhamento de melanoma; "
        "dermatofibrom, kanser; hemangioma, bazal hücreli karsinom; nevus sebaceus, carcinoma; "
        "misstänkt melanom; obs melanom; melanom kan ej uteslutas; ärr efter melanom; "
        "mistanke om melanom; mistænkt melanom; ikke melanom; uden melanom; mulig melanom; "
        "tidligere melanom; sandsynligvis nævus; ei nevus; mahdollinen naevus; "
        "podezření na melanom; není melanom; možný melanom; podozrenie na melanóm; "
        "sumnja na melanom; nije melanom; stanje nakon melanoma; vjerojatno nevus; "
        "obserwacja nevus; stan po melanoma; blizna po nevus; możliwy naevus; "
        "fără melanom; posibil melanom; nu este melanom; melanoma gyanú; nem melanoma; "
        "suspek melanoma; bukan melanoma; riwayat melanoma; muhtemel nevüs; melanom ekarte; "
        "melanom ihtimali; ön tanı: melanom; ailede melanom; vermoeden melanoma; "
        "uitsluiten melanoma; wrsch naevus; litteken naevus; HD: melanoma; afastar melanoma; "
        "história de melanoma; absence of melanoma; ausencia de melanoma; plutôt naevus; "
        "modermærkekræft; føflekkreft; znamiona; levervlek; rogowiak kolczystokomórkowy; "
        "früheres Melanom; Abklärung Melanom; high risk of melanoma; working diagnosis melanoma; "
        "malignt modermærke; malignt fibröst histiocytom; maligni madež; zloćudni madež; "
        "malignus anyajegy; elakartat födelsemärke; ondartat födelsemärke; tahi lalat ganas; "
        "habis melanositik ben; Nävus, Malignom; CEC bien diferenciado; CSC invasif; BZK solide; "
        "NMM 1,2 mm; SSMM; QA hipertrófica; CE bien différencié; CCB nodular; BHK nodüler; "
        "MES Breslow 0.5; pT1a; in situ; invasive; Lokalrezidiv; Clark Level III; récidive; "
        "spinozellulär; Feldkanzerisierung; PEK G1; bazaliomy; Spinnennävus; "
        "keratosis senilis; rogowacenie starcze; "
        "Melanom: nein; naevus: nee; melanoma: nej; melanoma: hayır; mistenker melanom; "
        "mencurigakan melanoma; low risk melanoma; risk: BCC; BCC, high risk of SCC; "
        "Neoplasm of unspecified behavior of bone, soft tissue, and skin; Skin lesion of face; "
        "Tumeur à évolution imprévisible de la peau; neoformazione cutanea; Tumor der Haut; "
        "Tumor de comportamiento incierto de la piel; lésion cutanée; Hautveränderung; nodule; "
        "Pigmentfleck; mancha pigmentada; skin growth; papule; neoplasia; zmiana skórna; "
        "2C30.0; EK90.0; Q82.5; other keratosis; actinic cheilitis; queilitis actínica; "
        "Cornu cutaneum; cutaneous horn; KIN II; Hutchinson-Melanose; melanotic freckle; "
        "birthmark; Geburtsmal; Bilder; Fotos; photos; Imágenes; DCIM; "
        "kÃ©ratose sÃ©borrhÃ©ique; NÃ¤vus; N├ñvus; N\ufffdvus; N\\u00e4vus; "
        "papule, sans précision; DFS; lésion pigmentée, sans précision; Hauttumor o.n.A."
    ),
}


@pytest.mark.parametrize(
    ("label", "words"),
    [(label, words) for label, text in WORDS.items() for words in text.split("; ")],
)
def test_words(label, words):
    found = interpret(words)
    assert found.label == label
    if label not in (None, "other"):
        assert found.malignant == (label in MALIGNANT)
        for spelt in (words.upper(), words.replace(" ", "_"), f"  {words} "):
            assert interpret(spelt).label == label
        for denied in (f"no {words}", f"kein {words}", f"suspected {words}", f"{words}?"):
            assert interpret(denied).label is None


@pytest.mark.parametrize("words", ["0", "3", "1.0", "class 3", "label_2", "7 ", "-1", "1e5"])
def test_class_numbers_name_nothing(words):
    assert interpret(words).kind == "number"


@pytest.mark.parametrize(
    ("words", "malignant"),
    [("benign", False), ("malignant lesions", True), ("gutartig", False), ("bösartig", True)]
    + [("iyi huylu", False), ("Kötü huylu", True), ("goedaardig", False), ("złośliwy", True)],
)
def test_benign_and_malignant_are_no_classes(words, malignant):
    assert (interpret(words).kind, interpret(words).malignant) == ("flag", malignant)


@pytest.mark.parametrize(
    ("words", "malignant"),
    [("BCC/SCC", True), ("Bowen, SCC", True), ("nevus/dermatofibroma", False), ("BCC/nevus", None)]
    + [("nevus, hemangioma, carcinoma", None), ("nevus sebaceus, hemangioma", None)]
    + [("BCC vs SCC", None), ("benign BCC/SCC", None)],
)
def test_two_classes_are_none_but_may_both_be_malignant(words, malignant):
    assert (interpret(words).kind, interpret(words).label) == ("unclear", None)
    assert interpret(words).malignant is malignant


def test_other_malignancies_are_malignant():
    for words in (
        "Merkel cell carcinoma",
        "Merkelzellkarzinom",
        "atypisches Fibroxanthom",
        "fibroxantoma atípico",
        "mycose fongoïde",
        "micosis fungoide",
        "huidlymfoom",
        "angiosarcoma",
        "DFSP",
        "cutaneous lymphoma",
        "CTCL",
        "Sézary",
        "Hautmetastase",
        "Satellitenmetastase",
        "linfoma cutáneo",
        "EMPD",
    ):
        assert (interpret(words).label, interpret(words).malignant) == ("other", True)
    for words in ("pseudolymphoma", "B-cell pseudolymphoma"):
        assert (interpret(words).label, interpret(words).malignant) == ("other", None)


def test_a_report_is_read_for_classes_and_is_else_no_diagnosis(monkeypatch):
    report = "Spindle cells with elongated nuclei in a collagenous stroma " * 3
    monkeypatch.setattr("difflib.get_close_matches", None)  # it would take 20 ms a report
    assert interpret(report).kind == "unclear"
    assert interpret(f"{report} nevus").label == "nv"


@given(st.text(max_size=60))
def test_any_text_is_taken(words):
    found = interpret(words)
    assert found.label in (None, *CLASSES)
    if found.label in MALIGNANT:
        assert found.malignant
