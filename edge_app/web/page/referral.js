"use strict";
/* A referral by FHIR of the result at hand: asked for, shown as it leaves, saved as a file. */
let referring = null;  // what was shown, word for word

function chosen(select, choices, first) {
  select.replaceChildren(...(first ? [new Option(first, "")] : []),
    ...choices.map(([key, words]) => new Option(words, key)));
}

async function openReferral() {
  const form = await ask("referralForm");
  chosen($("refer-site"), form.sites, t("Choose"));
  chosen($("refer-priority"), form.priorities);
  $("refer-pictures").replaceChildren(...state.pictures.map((_, at) => {
    const label = document.createElement("label"), words = document.createElement("span");
    label.className = "field";
    words.textContent = t("What does picture {number} show?", { number: at + 1 });
    const select = document.createElement("select");
    chosen(select, form.kinds, t("Choose"));
    label.append(words, select);
    return label;
  }));
  $("refer-question").value = "";
  paragraphs($("refer-consent"), form.consent.text.split("\n"));
  $("refer-agree").checked = false;
  $("refer-agree").onchange = () => { form.consent.given = new Date().toISOString(); };
  $("refer-form").onsubmit = (event) => {
    event.preventDefault();
    showReferral(form.consent);
  };
  writeReferral();
  show("referral");
}

/** Back to the questions. */
function writeReferral() {
  referring = null;
  $("refer-form").hidden = !($("refer-shown").hidden = true);
  $("refer-fault").hidden = $("refer-failed").hidden = true;
}

/** Nothing of it stays for the next person. */
function forgetReferral() {
  writeReferral();
  $("refer-form").reset();
  $("refer-rows").replaceChildren();
  $("refer-pictures").replaceChildren();
}

/** Of the person, also where a form was cleared since. */
const namesTyped = () =>
  [...state.names, $("save-name").value, $("keep-name").value].filter(Boolean);

async function showReferral({ version, language, given }) {
  $("refer-fault").hidden = true;
  const { pictures } = state;
  const wanted = {
    id: crypto.randomUUID(), now: new Date().toISOString(),
    site: $("refer-site").value, priority: $("refer-priority").value,
    kinds: [...$("refer-pictures").querySelectorAll("select")].map((one) => one.value),
    question: $("refer-question").value,
    consent: $("refer-agree").checked ? { version, language, given } : null,
    private: namesTyped(),
  };
  try {
    const rows = await ask("referralRows", { wanted });
    const list = card(t("This is all that leaves"), rows);
    list.classList.add("rows");
    $("refer-rows").replaceChildren(list);
    referring = { wanted, pictures };
    $("refer-form").hidden = !($("refer-shown").hidden = false);
    toTop();
  } catch (error) {
    $("refer-fault").textContent = keptFault(error);
    $("refer-fault").hidden = false;
  }
}

async function saveReferral() {
  $("refer-failed").hidden = true;
  $("refer-save").disabled = true;
  try {
    const file = await ask("refer", referring);
    download(file, `referral-${dayOf(new Date(referring.wanted.now))}.json`);
    return file;
  } catch (error) {
    $("refer-failed").textContent = keptFault(error);
    $("refer-failed").hidden = false;
    return null;
  } finally {
    $("refer-save").disabled = false;
  }
}

function leaveReferral() {
  if (referring) writeReferral();
  else show("result");
}

function prepareReferral() {
  $("refer").onclick = () => openReferral().catch(report);
  $("refer-save").onclick = saveReferral;
}
