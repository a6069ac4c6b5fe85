// Fetch the report when a generation ends, by success, failure or interrupt. While one runs, Forge shows either its
// Interrupt button or, after that was pressed, "Interrupting..." in its place.
onUiLoaded(function () {
    for (const tab of ["txt2img", "img2img"]) {
        const buttons = ["interrupt", "interrupting"].map((name) => gradioApp().getElementById(`${tab}_${name}`));
        const refresh = gradioApp().getElementById(`${tab}_flux_kontext_refresh`);
        if (!buttons[0] || !refresh) continue;
        const shown = (button) => button && button.style.display === "block";
        let running = false;
        const observer = new MutationObserver(function () {
            const now = buttons.some(shown);
            if (running && !now) refresh.click();
            running = now;
        });
        for (const button of buttons) {
            if (button) observer.observe(button, { attributes: true, attributeFilter: ["style"] });
        }
    }
});
