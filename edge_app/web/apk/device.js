"use strict";
/* The page's other half in the APK, before app.js: what a WebView lacks of a browser. */
{
  // Every file lies in the APK: nothing is to be kept once more.
  Object.defineProperty(navigator, "serviceWorker", { value: {
    controller: {}, addEventListener() {},
    register: async () => ({ waiting: null, installing: null, addEventListener() {} }),
  } });

  const made = new Map(), create = URL.createObjectURL, revoke = URL.revokeObjectURL;
  URL.createObjectURL = (content) => {
    const address = create.call(URL, content);
    made.set(address, content);
    return address;
  };
  URL.revokeObjectURL = (address) => {
    made.delete(address);
    revoke.call(URL, address);
  };

  const click = HTMLAnchorElement.prototype.click;
  HTMLAnchorElement.prototype.click = function () {
    const content = this.hasAttribute("download") && made.get(this.href);
    if (!content) {
      click.call(this);
      return;
    }
    const reader = new FileReader(), name = this.download;
    reader.onload = () =>
      dermedgeDevice.save(name, content.type, reader.result.slice(reader.result.indexOf(",") + 1));
    reader.readAsDataURL(content);
  };

  window.print = () => {
    dispatchEvent(new Event("beforeprint"));
    dermedgeDevice.print();
  };
  window.deviceNotSaved = (reason) => {
    const faults = { kept: "kept-fault", referral: "refer-failed" };
    const fault = document.getElementById(faults[state.screen] || "save-fault");
    if (fault.id === "save-fault") state.saved = null;  // it asks again before the photos go
    fault.textContent = t("The file could not be saved: {reason}", { reason });
    fault.hidden = false;
  };
  // Another app may want the camera.
  document.addEventListener("visibilitychange", () => { if (document.hidden) closeLive(); });
}
