// While a generation runs and its report is in sight, fetch how it goes once a second; when it ends, by success, failure
// or interrupt, fetch the report. Forge shows either its Interrupt button while it runs or, after that was pressed,
// "Interrupting..." in its place.
onUiLoaded(function () {
    const PERIOD = 1000;

    // A report is replaced as a whole: what was unfolded in it stays unfolded.
    function keepFolds(report) {
        const open = new Map();
        report.addEventListener("toggle", (event) => open.set(event.target.dataset.fkFold, event.target.open), true);
        new MutationObserver(() => {
            for (const fold of report.querySelectorAll("details[data-fk-fold]")) {
                const wanted = open.get(fold.dataset.fkFold);
                if (wanted !== undefined && fold.open !== wanted) fold.open = wanted;
            }
        }).observe(report, { childList: true, subtree: true });
    }

    for (const tab of ["txt2img", "img2img"]) {
        const element = (name) => gradioApp().getElementById(`${tab}_${name}`);
        const buttons = ["interrupt", "interrupting"].map(element);
        const [refresh, live, report] = ["refresh", "live", "report"].map((name) => element(`flux_kontext_${name}`));
        if (!buttons[0] || !refresh || !live || !report) continue;
        keepFolds(report);
        report.addEventListener("click", (event) => {
            const pressed = event.target.closest("[data-fk-press]");
            if (pressed) element(`flux_kontext_${pressed.dataset.fkPress}`)?.click();
        });
        const shown = (button) => button && button.style.display === "block";
        const inSight = () => !document.hidden && report.offsetParent !== null;
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
