// Fetch the report when a generation ends. Forge hides its Interrupt button then, after success and failure alike.
onUiLoaded(function () {
    for (const tab of ["txt2img", "img2img"]) {
        const interrupt = gradioApp().getElementById(`${tab}_interrupt`);
        const refresh = gradioApp().getElementById(`${tab}_flux_kontext_refresh`);
        if (!interrupt || !refresh) continue;
        let running = false;
        new MutationObserver(function () {
            const shown = interrupt.style.display === "block";
            if (running && !shown) refresh.click();
            running = shown;
        }).observe(interrupt, { attributes: true, attributeFilter: ["style"] });
    }
});
