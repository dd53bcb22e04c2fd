"""The words of the page that the app does not have; the page's files say only which ones."""

from __future__ import annotations

from edge_app.i18n.language import N_

MESSAGES = (
    N_("Downloading, for the first time only: {done} of {whole} MB"),
    N_("The first start takes a few seconds."),
    N_("Ready. It works without a network from now on."),
    N_("This browser cannot keep the page: open it by https, not in a private window."),
    N_("The download did not succeed: {reason}. Try again where the network is better."),
    N_("The program could not be started: {reason}"),
    N_("This browser is too old for the page: update it."),
    N_("There is not enough room on this device for the page: make room, then open it again."),
    N_("A new version is ready."),
    N_("Use it now"),
    N_("Take a photo"),
    N_("Choose a photo"),
    N_("Live picture"),
    N_("Close the live picture"),
    N_("The live picture gives hints only. The result comes from a photo."),
    N_("The camera cannot be used: allow it in the browser's settings, or take a photo."),
    N_("The camera stopped. Open the live picture again, or take a photo."),
    N_("Size reference beside the spot"),
    N_("The photo is being judged."),
    N_("Another photo of this spot"),
    N_("New spot"),
    N_("Save or print as PDF"),
    N_("The browser cannot read this picture as its file describes it: save it as JPEG."),
    N_(
        "This browser falsifies the colours that a page reads, against tracking: switch that off "
        "for this page, or use another browser."
    ),
    N_(
        "Nothing is kept unless you ask. When you close or reload the page, picture and result are "
        "gone."
    ),
    N_(
        "On an iPhone or iPad: press Share, then \u201cAdd to Home Screen\u201d. Otherwise Safari "
        "deletes the page from the device after a week without a visit."
    ),
    N_("Save for the app"),
    N_(
        "An encrypted file, which the app takes in by \u201cImport cases\u201d. Nobody reads it "
        "without the passphrase, not even you."
    ),
    N_("Name or code"),
    N_("Save the file"),
    N_("The two are not the same."),
    N_("Passphrase of the file"),
    N_("Once more"),
    N_("The file could not be saved: {reason}"),
    N_("Keep on this device"),
    N_(
        "Encrypted, in this browser alone. Whoever forgets the passphrase has lost the case: "
        "nobody can help."
    ),
    N_(
        "On an iPhone or iPad, add the page to the Home Screen first: Safari deletes what is kept "
        "together with the page."
    ),
    N_("Kept. It is under \u201cKept cases\u201d."),
    N_("The browser may delete it when the device is short of room: save the file, too."),
    N_("There is not enough room on this device: nothing was kept. Save the file instead."),
    N_("Kept cases"),
    N_("Nothing is kept on this device."),
    N_("Open"),
    N_("This file is damaged: it cannot be opened."),
    N_("This file is of another version of the page: save it and open it in the app."),
    N_("It did not succeed: {reason}"),
    N_("Delete the case of {date} from this device? Nothing brings it back."),
    N_("Photo taken: {date}"),
    N_("Save a referral (FHIR)"),
    N_("Ask a dermatologist"),
    N_(
        "A file for a clinic that takes FHIR R4, without a name. This page sends nothing: you hand "
        "the file on. It is not encrypted."
    ),
    N_("Where is the spot?"),
    N_("Choose"),
    N_("What does picture {number} show?"),
    N_("How soon?"),
    N_("What do you want to know?"),
    N_("Consent to send"),
    N_("The person has read or heard this, and agrees."),
    N_("Show all that leaves"),
    N_("This is all that leaves"),
    N_("Referral"),
    N_("The photo, with the outline that was found"),
    N_("The photo, in which no outline was found"),
    N_("The photos of the spot at hand are not saved: they go when you open another case."),
    N_("The photos of the spot at hand are not saved: they go when the new version comes."),
    N_("About this page"),
    N_("Size card to print (PDF)"),
)
