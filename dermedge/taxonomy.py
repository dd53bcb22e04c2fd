"""The one list of classes that every data set is mapped to, and how words are mapped to it.

The seven classes of HAM10000 (Tschandl et al., Sci. Data 5, 2018, doi:10.1038/sdata.2018.161),
squamous cell carcinoma, and everything else.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "scc", "other")

TITLES = {
    "akiec": "actinic keratosis / Bowen's disease",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
    "scc": "squamous cell carcinoma",
    "other": "other or unknown",
}

# Actinic keratosis / Bowen's disease is a precursor or in-situ carcinoma: a screening programme
# wants it seen, so it counts as malignant here, in every data set alike.
MALIGNANT = frozenset({"akiec", "bcc", "mel", "scc"})

# Codes that data sets use instead of words: HAM10000 and the ISIC challenges, PAD-UFES-20 (ACK,
# SEK, NEV), MILK10k (SCCKA), and the usual abbreviations of pathology. Codes that mean one thing
# in one data set and another elsewhere (Dermofit's ML, a mole) belong to that set's reader.
_CODES = {
    **{name: name for name in CLASSES},
    "ack": "akiec",
    "ak": "akiec",
    "iec": "akiec",
    "sccis": "akiec",
    "cbc": "bcc",
    "lichenoid": "bkl",
    "lk": "bkl",
    "lplk": "bkl",
    "pbk": "bkl",
    "sek": "bkl",
    "sk": "bkl",
    "seb k": "bkl",
    "sebk": "bkl",
    "alm": "mel",
    "lmm": "mel",
    "ssm": "mel",
    "nev": "nv",
    "nzn": "nv",
    "ka": "scc",
    "sccka": "scc",
}

_NEVUS = r"(?:n(?:ae|a|e)v(?:us(?:es|er|sen|ler|i|zok)?|ukset|i|en|o|os)|nevy)"
# Of what a nevus is that is no mole.
_NO_MOLE = (
    r"(?:sebac|talg|comedo|des?pigment|an(?:a)?em|lipomat|epiderm|becker|ach?rom(?!i[ao])|elasti"
    r"|eccrin|connectiv|organoid)\w*"
)
_VERRUCOUS = r"verr?u(?:[ckg]o|que)[su]\w*"
_KERATOSIS = (
    r"\b(?:keratos(?:e|es|en|er|is)?|keratom(?:a|ata|e|en|s)?|queratos[ei]s?|ceratoses?|cheratosi"
    r"|(?:k|ch)eratoz\w*|keratoosi)\b"
)
_LESION = (
    r"(?:lesion(?:s|es|e|i)?|lesao|lesoes|la?e?s[ij]on(?:en|er)?|laesies?|lezyonu?(?:lar)?"
    r"|tumou?r(?:s|en|es|e|i)?|tumeurs?)"
)
_CARCINOMA = r"(?:carcinom|karzinom|kazinom|epitheliom|epiteliom|cancer|krebs)\w*"
_IN_SITU = (
    r"\bin ?situ\b|\bintraepi(?:derm|thel|tel)\w*"
    r"|\bscc is\b(?! (?:\w+ )?(?:\w+ed|the|present|invasive)\b)"
)

# Taken in this order, each match is cut out before the next rule looks: an in-situ squamous cell
# carcinoma is Bowen's disease, and a nevus flammeus is a vessel, not a melanocytic nevus. Whole
# words only. English, German, French, Spanish, Italian, Portuguese, Latin, and what is benign in
# some more; without accents.
_SQUAMOUS = (
    rf"\bsquamous (?:cell )?(?:{_CARCINOMA}|ca)\b|\b(?:plattenepithel|stachelzell|spinozell)"
    r"(?:en|ular\w*)? ?(?:karzinom|carcinom|krebs|ca)\w*|\bspinaliom\w*"
    rf"|\b{_CARCINOMA} (?:\w+ ){{0,2}}?(?:epidermoid|escamo"
    r"|squamos|squamocel|squameu|spinocel|espinocel)\w*|\be?spino ?cel+ul\w*"
    rf"|epidermoid {_CARCINOMA}|\bsccs?\b"
)
_WORDS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (
            r"\bbowens?\b(?: s\b)?|\bqueyrat\b"
            r"|intraepi(?:thelial|dermal) (?:squamous cell )?carcinoma"
            r"|solar or actinic keratos[ei]s|\b(?:licht|sol|zonne|aurinko)keratoo?s\w*"
            r"|\bchorob[ay] bowena\b|\b(?:keratoz[ay]|rogowaceni[ea]) slonecz\w*",
            "akiec",
        ),
        # What seborrheic keratoses are called, too.
        (
            r"\b(?:basal cell|basalzell\w*) ?papill?om\w*"
            r"|\bpapill?om\w* (?:baso ?cel+ul\w*|(?:de|a|di) cel+ul\w+ basa\w+)"
            r"|\bdermatos\w* papulosa nigra\b",
            "bkl",
        ),
        # ICD-O 8094, among basal cell tumours.
        (
            rf"\bbaso ?squamous(?: cell)?(?: {_CARCINOMA})?\b|\bpinkus tumou?r\w*"
            r"|\b(?:fibroepith?eliom\w*|tum(?:ou?|eu)r\w*) (?:of |de |di |von )?pinkus\b",
            "bcc",
        ),
        (_SQUAMOUS + r"|\b(?:k|c|ch|qu)eratoa[ck]anth?om(?:a|as|e|es|en|i)?\b", "scc"),
        (
            rf"basal cell (?:{_CARCINOMA}|ca\b)|\bbasaliom(?:a|as|e|en|i|s)?\b"
            r"|\bbasalzell(?:en|ular\w*)? ?(?:karzinom|carcinom|krebs|ca)\w*|\bbaso ?cel+ul\w*"
            rf"|\b{_CARCINOMA} (?:de|a|di|das) cel+ul\w+ basa\w+|\brodent ulcers?\b"
            r"|\bulcus rodens\b|\bbccs?\b",
            "bcc",
        ),
        (
            r"\blentigo mali(?:gn[aeo]|n)\b(?: melanom(?:a|as|e|en|es|i)?)?\b"
            r"|\bdubreuilh?\b|\bmelanom(?:a|as|ata|e|en|es|i|s)?\b",
            "mel",
        ),
        (
            r"\b(?:solar\w*|actinic|senile|sun|aktinische|solare) lentig\w+"
            r"|\blentig\w+ (?:sola[ri]|actini|attini|senil)\w*|\blichen planus like keratos[ei]s"
            r"|\b(?:verruca|warze|verrue|verruga)\w* (?:seborr?h?o?e?|senil)\w*"
            r"|\bseb(?:or\w+)? (?:warzen?|warts?|verr?u[ck]a\w*)\b|\balterswarzen?\b"
            r"|\bmelanose solar\b"
            r"|\b(?:altersfleck(?:en?)?|(?:age|liver) spots?|ouderdomsvlek(?:ken)?)\b"
            r"|\bouderdomswrat(?:ten)?\b|\balderdomsvorter?\b|\balderssvart(?:a|or)\b|\brasvaluomi\b"
            r"|\b(?:brodawk[ai]|keratoz[ay]|rogowaceni[ea]) lojotok\w*|\bbrodawka starcza\b",
            "bkl",
        ),
        (
            rf"\b{_NEVUS} (?:flamm|arane|vascul|angiomat|tele?angi|stella|simplex|vinos)\w*"
            rf"|\bblue rubber bleb {_NEVUS}\b"
            rf"|\b(?:spider|strawberry|vascular) {_NEVUS}\b|\bport wine stains?\b|\bfeuermale?\b"
            r"|\b(?:ha?e?m|em)?angioo?m(?:a|as|ata|e|en|er|es|i|s)?\b|\bblutschwamm\b"
            r"|\bangio(?:k|qu|ch?)h?eratom\w*|\b(?:pyogen|piogen)\w* granulom\w*"
            r"|\bgranulom\w* (?:pyogen|piogen|tele?angiecta[st])\w*"
            r"|\bbotr[iy]om[iy][ck]om\w*|\bvenous lakes?\b|\bla(?:gos?|ghi|cs?) ve(?:nos|ineu)\w*"
            r"|\b(?:capillary|(?:arterio)?venous|vascular|[kv]a\w+lare) malformation(?:s|en)?\b"
            r"|\bmalforma\w+ (?:capil|vas[ck]|(?:arterio)?ve(?:nos|ineu))\w*"
            r"|\bsalmon patch(?:es)?\b|\bstork bites?\b|\bh(?:a)?emorrhage\b"
            rf"|\bvas[ck]?[uo]l\w* {_LESION}\b|\b{_LESION} vas[ck]?[uo]l\w*|\bgefassla?e?sion\w*"
            r"|proliferations vascular|\b(?:wijn|aardbei)vlek(?:ken)?\b|\bverisuoniluomi\b"
            r"|\b(?:hem)?anjiy?om(?:lar)?\b|\banjiy?okeratom\w*|\bpiyojenik granulom\w*"
            r"|\bnaczyniaki?\b|\b(?:ziarniniak|zmian[ay]) naczyniow\w*"
            r"|\bmancha (?:de )?vinh?o d[eo] o?porto\b"
            rf"|\b(?:puntos?|pontos?|taches?|manchas?|{_NEVUS}) rubis?\b",
            "vasc",
        ),
        (
            # Also the syndromes in whose name a class is only a part.
            rf"\b{_NEVUS} {_NO_MOLE}|\b{_NO_MOLE}(?: s| tissue)? {_NEVUS}\b"
            rf"|\bwhite sponge {_NEVUS}\b"
            rf"|\b(?:talgdrusen|becker|epidermal|komedonen|bindegewebs|haar){_NEVUS}\b"
            rf"|\b{_NEVUS} (?:of|de|di|von|van) becker\b|\b{_NEVUS} unius lateris\b"
            # Epidermal; a "compound nevus, verrucous" is a mole.
            rf"|^{_NEVUS} {_VERRUCOUS}\b|^{_VERRUCOUS} {_NEVUS}\b"
            rf"|basal cell {_NEVUS}",
            "other",
        ),
        (
            rf"\b(?:compound|junktion(?:s|al)|grenz|spindelzell|(?:riesen)?pigment|spitz|halo|zell"
            r"|papillen|melano[cz]yt(?:t|en)?|(?:intra)?dermal|korium|clark|reed|sutton|kongenital"
            rf"|tierfell|schleimhaut|kombinations)?{_NEVUS}a?\b"
            rf"|\bn(?:ae|a|e)vuszell{_NEVUS}\b|(?<!fibroma )(?<!fibromas )\bmoles?\b"
            r"|\bmuttermale?\b|\bleberflecke?n?\b"
            r"|\bgrains? de beaute\b|\blunar(?:es)\b|\blunar\b(?! eclipse)"
            r"|\bne[oi] (?:di )?(?:melanocit|displas|congen|atipic|dermic|giunzion|compost|blu"
            r"|intraderm|pigmentat|comun|cutane|spitz|reed|clark|sutton|unna|miescher)\w*"
            # Dutch, Turkish, Polish, Danish, Norwegian, Swedish, Finnish, Hungarian, Croatian,
            # Romanian, Indonesian
            r"|\bmoedervlek(?:ken)?\b|\bbenler\b|\bpieprzyki?\b"
            r"|\b(?:melanositik|displastik|atipik|pigmente|konjenital|mavi) ben\b"
            r"|\bznami(?:e|ona) (?:\w+ )?(?:barwnikow|melanocyt|dysplastycz|atypow|blekitn|spitz"
            r"|reed|clark)\w*|\bmoderma?erker?\b|\bfoflekk(?:er)?\b|\bfodelsemarken?\b"
            r"|\bleverflack(?:ar)?\b|\b(?:pigmentti)?luom(?:i|et)\b|\banyajegy(?:ek)?\b|\bmadezi?\b"
            r"|\balunit[ae]\b|\btahi lalat\b",
            "nv",
        ),
        (
            r"\bdermatofibrom(?:a|as|ata|e|en|es|i|s)?\b|\bhistio[cz]yto?fibrom\w*"
            r"|\b(?:benign )?fibr\w+ histio[cz][iy]tom\w*|\bhistio[cz]ytoo?m(?:e|en|er)?\b"
            r"|\bdermatofibrooma?\b|\bwlokniaki? tward[ye]\b",
            "df",
        ),
        # Codes beside words: "BCC, nodular" is met above; "Melanocytic nevi (NV)" here.
        *(
            (rf"\b{code}(?:(?<!df)s)?\b", name)  # DFS: a dermatofibrosarcoma
            for code, name in _CODES.items()
            if code not in ("other", "lichenoid", "lk")
        ),
    )
)

_ACTINIC = re.compile(r"\b(?:a[ck]t(?:in(?:i\w+)?)?|attinic\w+|sola(?:r|ir)\w*)\b")
_SEBORRHEIC = re.compile(r"\b(?:sebb?or+h?\w*|seb)\b")
_BENIGN_KERATOSIS = re.compile(r"\b(?:benign\w*|gutartig\w*|lichenoid\w*|pigmented benign)\b")

# A statement about a class that is not a diagnosis of it: denied, doubted, compared, past.
_VAGUE = re.compile(
    r"\b(?:"
    # English
    r"non|non\w*melanoma|not|no|without|negative|neg|exclud\w*|exclusion|rul(?:e|ed|ing) out|r o"
    r"|suspect\w*|suspici\w*|susp|possibl[ey]|probabl[ey]|prob|likely|unlikely|presum\w+|query"
    r"|maybe|perhaps|uncertain|unclear|unsure|unconfirmed|undetermined|indeterminate|borderline"
    r"|other|others|oth|vs|versus|against|ddx?|differential\w*|mimic\w*|simulat\w*|resembl\w*"
    r"|consistent with|compatible with|favou?rs?|could be|history|hx|status post|s p|post|former"
    r"|scars?|free|syndrome|collision|mixed|pseudo|anti|pre|suggest\w*|concern\w*|worrisome"
    r"|equivocal|queried|precursors?|previous\w*|prior|follow ?up|f u|screening|ago|risk|consider"
    r"|check for|rather|appears|seems|assumed|provisional|working|lookalike|unverified|false"
    # Not known, or not yet; also of folders.
    r"|un(?:known|label\w*|sort\w*|classif\w*|diagnosed|bekannt\w*|bestimmt\w*)|pending|to ?do"
    r"|(?:new|neuer) (?:folder|ordner)|inconnue?s?|des(?:conocid|conhecid)\w*|sconosciut\w*"
    r"|onbekend|nieznan\w*|ausstehend\w*|en attente|pendi?ente|in attesa|ignorad\w*|okand\w*"
    r"|uk(?:endt|jent)|belirsiz|bilinm\w*|tanisiz|await\w*|tbd|to be (?:determined|confirmed)"
    r"|folgt|abwart\w*|steht aus|offen|en (?:cours|espera|estudio)|em (?:analise|andamento)"
    r"|in corso|(?:a|da|por|zu) (?:conferm\w*|confirm[ae]r\w*|definire?|bestimmen)|aguard\w*"
    r"|beklen\w*|afvent\w*|avvent\w*|vantar|afwacht\w*|volgt|oczek\w*|w trakcie"
    # Where it stands, or that there is none.
    r"|(?:see|siehe|voir|ver|zie) (?:report|befund|histo|patholog|compte|verslag)\w*"
    r"|s (?:befund\w*|histo(?:logie)?|pathologie)"  # not "Bowen's histology"
    r"|insufficient|inadequate|nondiagnostic"
    # Of several languages: a control, the family, what is cut out again.
    r"|\w*[ck]ontroll?\w*|famil\w*|re ?ex[cz]i[sz]\w*"
    # German
    r"|kein\w*|nein|nicht|ohne|\w*ausschluss|ausgeschlossen|ausschliessen|\w*verdacht\w*|v a"
    r"|moglich\w*|moeglich\w*|wahrscheinlich\w*|vermutlich\w*|eher|ehesten|unklar\w*|unsicher\w*"
    r"|zustand nach|z n|st p|(?:\w+om)?narben?|gegen|(?:tumor|metastasen)?frei|verd|vdt?|va|v auf"
    r"|aus(?:ge|zu)?schl|a e|wohl|fraglich\w*"
    r"|\w*vorstufen?|\w*anamnes\w*|angst|fragl|moe?gl|wahrsch|vermutl|unkl|zn|st n|status nach"
    r"|vereinbar|passend|evtl|ev|ggfs?|\w*nachsorge|vor (?:jahr|monat)\w*"
    r"|nach(?:exzision|resektion|schnitt)\w*|fruhere\w*|abkl(?:arung)?|frage|risiko"
    # French
    r"|pas|sans|exclu\w*|eliminer|ecarter|ecarte|soupcon\w*|contre|incertain\w*|cicatrice\w*"
    r"|antecedents?|suspicion|compatible avec|evocat\w*|evoqu\w*|en faveur|eventuel\w*|atcds?"
    r"|negati[fv]\w*|suivi|surveillance|il y a"
    # Spanish, Italian, Portuguese
    r"|sin|ni|nao|sem|senza|descart\w+|esclu\w*|sospech\w*|sospett\w*|suspeit\w*|posibl[ey]"
    r"|possibil\w*|probabil\w*|possivel|provavel|dudos\w*|dubbi\w*|duvidos\w*|contra|contro"
    r"|cicatri[zx]|cicatrici|antecedentes?|compatib[il]\w*|compativ\w*|suge(?:st|r)\w*|sosp"
    r"|impresiona|presunt\w*|h?ipotes\w*|verosimil\w*|pregress\w*|esiti|seguimiento|hace"
    r"|acompanhamento"
    r"|a[bu]sen\w*|assenza|h?istori[ac]\w*|storia|histoire|precedente|previ[oa]|quesito|hd"
    r"|esclarecer|afastar|orientativ\w*|plutot|doute\w*|hypothese\w*|anciens?"
    # Turkish
    r"|degil|suphe\w*|kusku\w*|olasi\w*|olabilir|ihtimal\w*|muhtemel\w*|lehine|on ?tani\w*"
    r"|ekarte|dislan\w*|yok|hayir|oyku\w*|gecirilmis|skari?|takip|ailede"
    # Dutch
    r"|geen|nee|niet|zonder|uitgesloten|uitsluit\w*|mogelijk\w*|waarsch\w*|wrsch|wsl|vermoed\w*"
    r"|verdenk\w*|eerder|litteken\w*|status na|bekend met|cave"
    # Danish, Norwegian, Swedish, Finnish
    r"|ikke|inte|ej|nej|ingen|inget|intet|uden|uten|utan|obs|mistank\w*|misstan[ck]\w*|mistaenk\w*"
    r"|mistenk\w*|mulig\w*|mojlig\w*|trolig\w*|sannsynlig\w*|sannolik\w*|sandsynlig\w*|udeluk\w*"
    r"|uteluk\w*|uteslut\w*|tidligere|tidigare|oklar\w*|uklar\w*|arr? efter|o(?:pp|p)folg\w*"
    r"|uppfolj\w*|hereditet|ei|epail\w*|mahdolli\w*|todennakoi\w*|aiem\w*"
    # Polish, Czech, Slovak, Croatian, Serbian, Slovene
    r"|nie|neni|nije|bez|brak|podejrz\w*|podezr\w*|podozr\w*|sumnj\w*|sum na|suspekt\w*"
    r"|wykluczon\w*|wykluczenia|vylouc\w*|vyluc\w*|iskljuc\w*|prawdopodobn\w*|pravdepodob\w*"
    r"|vjerojatn\w*|verovatn\w*|verjetn\w*|mozliw\w*|mozn[aey]|moguc\w*|obserwacj\w*"
    r"|w kierunku|stan po|blizn(?!ow)\w*|wywiad\w*|\w*anamnez\w*|stanje (?:nakon|po)"
    # Romanian, Hungarian, Indonesian
    r"|fara|posibil|nu|gyanu\w*|nem|valoszinu\w*|kizar\w*|lehetseges"
    r"|suspek|\w*curiga\w*|bukan|tidak|kemungkinan|riwayat|diduga|dugaan"
    # Latin
    r"|sine|suspectum|dubi\w*"
    r")\b"
)
_DOUBT = frozenset("?¿¬~")
_LIKE = re.compile(r"\blike\b|\bartig\w*|\bahnlich\w*|\baehnlich\w*")
_KNOWN_LIKE = re.compile(r"keratos[ei]s like lesions?|lichen planus like")
# As the ICD's titles say that nothing more is known, and pathologists after them.
_UNSPECIFIED = re.compile(
    r"\b(?:not otherwise specified|nicht naher bezeichnet|o n a|sans (?:autre )?precision"
    r"|(?:sitio |local )?n[ao]o? especificad[oa]s?|(?:sede )?non specificat[aoie])\b"
    r"|^(?:l82[.,]1 )?other (?=seborrheic keratos[ie]s\b)"
)
# A group of carcinomas that are there; any other risk is of what may come.
_RISK_GROUP = re.compile(
    r"\b(?:high|low) risk (?=(?:bcc|scc|basal|squamous)\b)"
    r"|(?:(?<=\bbcc)|(?<=\bscc)|(?<=carcinoma)) (?:high|low) risk\b(?! of| for)"
)
_OR = re.compile(r"\b(?:or|oder|ou|o)\b")
# What may stand alone on one side of an "or": "reed or spitz nevus".
_SUBTYPES = re.compile(
    r"(?:\b(?:atypical|dysplastic|clark|reed|spitz|blue|halo|compound|junctional|dermal|common"
    r"|congenital|combined|recurrent|benign|solar|actinic|acral|nodular|superficial)\b ?)+"
)

_BENIGN_WORD = re.compile(r"\b(?:benign\w*|benin|gutartig\w*|goedaardig\w*|iyi huylu)\b")
_MALIGNANT_WORD = re.compile(
    r"\b(?:malign\w*|malin|bosartig\w*|boesartig\w*|kwaadaardig\w*|kotu huylu|zlosliw\w*)\b"
)
_BARE = re.compile(
    rf"\b(?:skin|haut|{_LESION}|cases?|neoplasms?|neubildung\w*"
    r"|images?|pictures?|(?:ph|f)otos?|bild(?:er)?|aufnahmen?|imagenes|immagini|imagens|dcim)\b"
)
# That there is something, and where, but not what: "neoplasm of unspecified behavior of skin",
# "lesione cutanea", "tumeur à évolution imprévisible de la peau".
_ON_SKIN = (
    r"(?:skin|(?:sub)?[ck]utan\w*|haut|peau|piel|pele|cute|huid|skor\w*|deri|gepigmenteerde|pigment\w*"
    r"|barwnikow\w*|changing|new|abnormal|finding|disorder)"
)
_SOMETHING = re.compile(
    rf"(?:{_ON_SKIN} )*(?:(?:haut|hud|huid|pigment)?(?:{_LESION}|verander\w+|forandr\w+|fleck\w*"
    r"|mal|afwijking\w*|befund\w*)|neoplas\w*|neoform\w*|tumora\w*|growths?|mass(?:es)?|lumps?|bumps?"
    r"|nodul\w*|papul\w*|papeln?|macul\w*|spots?|knoten|raumforderung\w*|taches?|manchas?|macchi[ae]"
    rf"|excrecenc\w*|plek\w*|vlek\w*|zmian[ay]|guz\w*)(?: {_ON_SKIN})*"
    r"(?: (?:of|on|de[lrs]?|du|d|di|da|do|della|a|en|na|von|vom|an|am|im|i|pa|sur|van|op|w)"
    # Freckles and café-au-lait spots are known.
    r" (?!rousseur|caf).*)?"
)
_OTHER_MALIGNANT = re.compile(
    r"\bmerkel\w*|\w*sarcom(?:a|as|e|es|i)?\b|\w*sarkom(?:e|en)?\b|\bkaposi\b|\bdfsp\b"
    r"|\b(?!pseudo)\w*(?:lymph|lymf|linf|lenf)oo?m(?:a|as|e|en|es|i)?\b|\bctcl\b|\bsezary\b"
    r"|\bleuka?emia cutis\b|\bm[iy][ck]os\w* f[uo]ngoid\w*|\bsebaceous (?:cell )?carcinoma\b"
    r"|\b(?:poro|adeno)carcinoma\b|\badnexal carcinoma\b|\bat[iy]p\w* fibroxanth?om\w*"
    r"|\bfibroxanth?om\w* at[iy]p\w*"
    r"|\bpagets?\b|\bempd\b|\b(?:haut|satelliten|intransit|lymphknoten)?metasta\w*"
)
# Words of cancer that no rule took.
_CANCER = (
    r"\w*(?:melanom|melanoom|carcino|karcino|karzino|karsino|epiteliom|epitheliom|cancer|kanzer|krebs"
    r"|ba[sz]aliom|spinaliom|bowen"
    # Languages whose classes are not known: Dutch, Nordic, Slavic, Hungarian, Turkish ...
    r"|cancr|kanker|kanser|kreft|kraeft|krabbamein|syop|rakovin|czerniak"
    r"|kwaadaardig|ondartet|ondarta[dt]|elakarta[dt]|pahanlaatu|zlosliw|zlocud|zhoubn"
    r"|rosszindulat|ung thu)\w*|\b(?:\w*rak|ganas|habis)\b"
)
_CANCER_WORD = re.compile(_CANCER)
# These, abbreviations of classes, and codes of the ICD: not a class for sure, and certainly not
# "something else".
_UNPLACED = re.compile(
    _CANCER + r"|\w*(?:malign|bosartig|rogowaceni|rogowiak|aardig|huylu|joindulat)\w*"
    # What was done to find out.
    r"|\b(?:histo|(?:histo)?(?:histo|path?o)lo[gj]\w*|\w*biy?ops\w*|\w*ex[cz]i[sz]\w*|specimen)\b"
    # How far a cancer has come.
    r"|\b(?:breslow|tumordicke|clark|p?t[0-4][ab]?|in situ|invasi\w*|sentinel|\w*rezidiv\w*"
    r"|recurren\w*|r[ei]cidiv\w*|fili[ae]n?|hautfili\w*|\w*blastomatosa|basalzell\w*|spinozell\w*)\b"
    # A mole in Portuguese; also a sign, an infection. In others a birthmark, of pigment or vessels.
    r"|\b(?:pintas?|sinal|sinais|levervlek(?:ken)?|syntymamerk\w*|dogum lekesi)\b"
    r"|\b(?:birth ?marks?|geburtsmale?)\b|\bznam[ei]\w*"
    r"|\bpr(?:a|ae|e)kanzeros\w*|\b(?:pigment|haut)(?:tumor|lasion|laesion)\w*|\b\w+n(?:ae|a)v(?:us|i)\b"
    r"|\b(?:ca|mm|mmis|nmm|ssmm|nmsc|[ci]?scc|sqcc|basal cell|squamous cell|kerat|melan)\b"
    # Carcinomas in Spanish, Portuguese, French, German, Dutch and Turkish.
    r"|\b(?:cc?e|ccb|cec|csc|bzk|pek|pcc|bhk|shk|q[as])\b"
    # On the lip, a cancer or what comes before it; a horn stands on either, or on a wart.
    r"|\b(?:actin|aktin|attin|solar)\w* [ck]heilit\w*|\b(?:ch|qu?)eilit\w* (?:actin|aktin|attin)\w*"
    r"|\bcornu cutane\w*|\bcutaneous horns?\b|\bhauth?orn\b|\b(?:cuerno|corno|corne) cutane\w*"
    r"|\bkin ?[1-3i]*\b|\bhutchinson\w*|\bmelanotic freckles?\b"
    # Codes of the ICD-10 and ICD-11.
    r"|\bicd\b|\b[a-z][0-9]{2}(?:[.,][0-9]+)?\b|\b[1-9a-z][a-z][0-9][0-9a-z](?:[.,]\w+)?\b"
)
# "Atypical melanocytic lesion", "lesión pigmentada": a nevus, a melanoma, or neither.
_ANY_MOLE = re.compile(
    r"(?:(?:melano[cz][iy]t(?:ic|ai?r)|pigment(?:ed|iert|ad|at|e|air)|at[iy]pi)\w* ?)+"
)
_SPELLINGS = (
    *("melanoma", "melanom", "nevus", "naevus", "carcinoma", "karzinom", "basaliom", "spinaliom"),
    *("basalzellkarzinom", "plattenepithelkarzinom", "keratosis", "keratose", "dermatofibroma"),
    *("hemangioma", "haemangioma", "keratoacanthoma", "seborrheic", "basocelular", "squamous"),
)
_MOST_WORDS = 20  # of a diagnosis
# The items of "['Eczema', 'Nevus']" or "{'Nevus': 0.6, ...}": what several doctors thought.
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")
# What spreadsheets write in place of a value: "#NV" is German for "#N/A", "#WERT!" for "#VALUE!".
_NO_VALUE = re.compile(r"#(nv|\S*!)", re.IGNORECASE)
# Letters that were lost or came apart on the way: UTF-8 read as Windows-1252 ("NÃ¤vus") or as an
# archive's cp437 ("N├ñvus"), what no letter was found for, or JSON's own writing.
GARBLED = re.compile(
    "[ÂÃ][\u0080-\u00bfŒœŠšŽžŸƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]|[ÄÅ][\u0080-\u00bfŒœŠšŽžŸƒˆ˜†‡‰‹›€™]|[├┬]."
    r"|\ufffd|\\u[0-9a-fA-F]{4}"
)
_NUMBER = re.compile(r"[0-9][0-9.,]*(?:e[0-9]+)?k?")
_CLASS_NUMBER = re.compile(
    r"(?:class|klasse|classe|clase|label|category|type|cls|target|group|c|l)? ?[0-9., ]+"
    r"(?:e[0-9]+)?"
)


@dataclass(frozen=True)
class Diagnosis:
    """What a word or code of a data set says.

    kind : 'class', 'flag' (only benign or malignant), 'other' (something that is none of our
        classes), 'unclear' (denied, doubted, two classes, an unknown abbreviation, perhaps a
        misspelling) or 'number'.
    label : one of `CLASSES`, None where the kind is 'flag', 'unclear' or 'number'.
    malignant : None where the words do not say.
    """

    kind: str
    label: str | None = None
    malignant: bool | None = None


@lru_cache(maxsize=4096)
def interpret(diagnosis: str) -> Diagnosis:
    """What a data set's own code or words say; see `Diagnosis`.

    Case, accents, plurals, hyphens and underscores do not matter; numbers before or after the
    words ("2. Melanoma 15.75k") are dropped. A lentigo that is not called solar, melanosis, and
    atypical melanocytic proliferations belong to none of the classes of HAM10000: 'other'.
    """
    if "&" in diagnosis:
        import html  # a browser's Python has none

        diagnosis = html.unescape(diagnosis)
    if diagnosis.lstrip().startswith(("[", "{")):
        listed = {interpret(one or other) for one, other in _QUOTED.findall(diagnosis)}
        if len(listed) > 1:
            return Diagnosis("unclear")
    if _NO_VALUE.fullmatch(diagnosis.strip()) or GARBLED.search(diagnosis):
        return Diagnosis("unclear")
    text = _plain(diagnosis)
    if _CLASS_NUMBER.fullmatch(text):
        return Diagnosis("number")
    words = _UNSPECIFIED.sub(" ", text).split()
    text = " ".join(word for word in words if not _NUMBER.fullmatch(word))
    if not text or not _DOUBT.isdisjoint(diagnosis):
        return Diagnosis("unclear")
    if text in _CODES:
        return _named(_CODES[text])
    bare = " ".join(_BARE.sub(" ", text).split())
    for pattern, malignant in ((_BENIGN_WORD, False), (_MALIGNANT_WORD, True)):
        if pattern.fullmatch(bare):
            return Diagnosis("flag", None, malignant)
    text = _RISK_GROUP.sub(" ", text)
    if _VAGUE.search(text):
        return Diagnosis("unclear")
    if _LIKE.search(_KNOWN_LIKE.sub(" ", text)):
        return Diagnosis("unclear")
    classes = _classes(text)
    sides = _OR.split(text)
    if classes and not all(_classes(side) or _SUBTYPES.fullmatch(side.strip()) for side in sides):
        return Diagnosis("unclear")
    benign, malignant = bool(_BENIGN_WORD.search(text)), bool(_MALIGNANT_WORD.search(text))
    if not classes:
        return _unplaced(text, bare, benign, malignant)
    if classes == {"vasc"} and malignant:  # an angiosarcoma, filed under "malignant ... vascular"
        return Diagnosis("other", "other", True)
    # "Naevus, czerniak": a class beside a cancer of which no rule knows which it is.
    cancer = malignant or _OTHER_MALIGNANT.search(text) or _CANCER_WORD.search(text)
    if (classes & {"bcc", "mel", "scc"} and benign) or (classes - MALIGNANT and cancer):
        return Diagnosis("unclear")
    if len(classes) > 1:  # "BCC/SCC" is malignant whichever it is
        known = {_named(label).malignant for label in classes}
        return Diagnosis("unclear", None, known.pop() if len(known) == 1 else None)
    return _named(*classes)


def _plain(text: str) -> str:
    """Lower case, no accents, single spaces, nothing but letters, digits and spaces."""
    text = text.casefold()
    for letter, plain in (("æ", "ae"), ("œ", "oe"), ("ø", "o"), ("ł", "l"), ("ı", "i")):
        text = text.replace(letter, plain)
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    # A point or comma inside a number stays: "15.75k" is one number.
    text = re.sub(r"(?<![0-9])[.,]|[.,](?![0-9])", " ", text)
    return " ".join(re.sub(r"[^\w.,]+|_", " ", text).split())


def _named(label: str) -> Diagnosis:
    if label == "other":
        return Diagnosis("other", "other")
    return Diagnosis("class", label, label in MALIGNANT)


def _classes(text: str) -> set[str]:
    classes = set()
    in_situ = re.search(_IN_SITU, text)
    for pattern, name in _WORDS:
        text, matches = pattern.subn(" ", text)
        if matches:
            classes.add("akiec" if name == "scc" and in_situ else name)
    if re.search(_KERATOSIS, text):
        actinic, seborrheic = _ACTINIC.search(text), _SEBORRHEIC.search(text)
        if actinic:
            classes.add("akiec")
        if seborrheic or (not actinic and _BENIGN_KERATOSIS.search(text)):
            classes.add("bkl")
    return classes


def _unplaced(text: str, bare: str, benign: bool, malignant: bool) -> Diagnosis:
    if benign and malignant:
        return Diagnosis("unclear")
    if _OTHER_MALIGNANT.search(text) and not benign:
        return Diagnosis("other", "other", True)
    if benign or malignant:
        # "Benign melanocytic proliferations": classes of ours are among them.
        return Diagnosis("unclear", None, malignant)
    words = text.split()
    doubtful = (
        not text.isascii()  # another script: nothing is known of it
        or _UNPLACED.search(text)
        or not bare
        or _SOMETHING.fullmatch(text)
        or text in ("true", "yes", "positive", "abnormal", "neoplasm", "false", "normal", "healthy")
        or _SUBTYPES.fullmatch(text)
        or len(text) <= 3  # an abbreviation that nobody here knows
        or any(re.search("[0-9]{3}", word) for word in words)  # an identifier
        or re.fullmatch(rf"(?:senil\w* )?{_KERATOSIS}(?: senil\w*)?", text)
        or _ANY_MOLE.fullmatch(bare)
        or len(words) > _MOST_WORDS  # a report: what it says is not for these rules to know
        or any(map(_misspelt, words))
    )
    return Diagnosis("unclear") if doubtful else Diagnosis("other", "other")


@lru_cache(maxsize=4096)
def _misspelt(word: str) -> bool:
    """Whether it looks like a word of a class, and is none."""
    known = len(word) <= 4 or word in _SPELLINGS
    return not known and bool(difflib.get_close_matches(word, _SPELLINGS, 1, 0.84))
