// While a generation runs and its panel is in sight, fetch how it goes once a second; when it ends, by success, failure
// or interrupt, fetch the report. Forge shows either its Interrupt button while it runs or, after that was pressed,
// "Interrupting..." in its place.
onUiLoaded(function () {
    const PERIOD = 1000;
    for (const tab of ["txt2img", "img2img"]) {
        const element = (name) => gradioApp().getElementById(`${tab}_${name}`);
        const buttons = ["interrupt", "interrupting"].map(element);
        const [refresh, live] = ["flux_kontext_refresh", "flux_kontext_live"].map(element);
        if (!buttons[0] || !refresh || !live) continue;
        const shown = (button) => button && button.style.display === "block";
        const inSight = () => {
            const report = element("flux_kontext_report");
            return !document.hidden && report !== null && report.offsetParent !== null;
        };
        let timer = null;
        const observer = new MutationObserver(function () {
            const now = buttons.some(shown);
            if (now && timer === null) {
                timer = setInterval(() => inSight() && live.click(), PERIOD);
            } else if (!now && timer !== null) {
                clearInterval(timer);
                timer = null;
                refresh.click();
            }
        });
        for (const button of buttons) {
            if (button) observer.observe(button, { attributes: true, attributeFilter: ["style"] });
        }
    }
});
