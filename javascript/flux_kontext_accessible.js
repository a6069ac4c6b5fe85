// What gradio leaves out for keyboards and screen readers: groups, names, states, live regions. Names point at text
// that stands on the page instead of repeating it, so that a translation of the page holds for them too.
onUiLoaded(function () {
    let given = 0;
    const idOf = (element) => element.id || (element.id = `flux_kontext_part_${++given}`);

    function describe(panel, part) {
        const group = (element, heading) => {
            element.setAttribute("role", "group");
            element.setAttribute("aria-labelledby", idOf(heading));
        };
        for (const button of panel.querySelectorAll("button.label-wrap")) {
            const [title, arrow] = button.children;
            button.setAttribute("aria-expanded", button.classList.contains("open"));
            arrow.setAttribute("aria-hidden", "true");
            title.querySelector("input")?.setAttribute("aria-labelledby", idOf(title));
        }
        for (const number of [1, 2, 3, 4]) {
            if (!part(`image${number}`)) continue; // gradio has not built the second row yet
            const label = part(`image${number}`).querySelector("[data-testid=block-label]");
            group(part(`slot${number}`), label);
            const options = part(`options${number}`);
            if (options) group(options, options.querySelector(".fk-name .fk-facts"));
            const image = part(`image${number}`).querySelector(".image-frame img");
            if (image) image.alt = label.textContent.trim();
        }
        for (const element of panel.querySelectorAll("[aria-label]")) {
            // Forge translates what is seen; gradio names sliders "range slider for Threshold".
            const said = localization[element.getAttribute("aria-label").replace(/^(number input|range slider) for /, "")];
            if (said) element.setAttribute("aria-label", said);
        }
        for (const name of ["facts1", "facts2", "facts3", "facts4", "missing", "stitched", "restore_question", "prompt_tokens", "warning", "spoken"]) {
            // Not the component itself: gradio changes what else is in it at every event, and that would be read again.
            part(name)?.querySelector(".prose")?.setAttribute("role", "status");
        }
        group(part("presets"), part("presets").querySelector(".fk-facts"));
        for (const button of part("presets").querySelectorAll("button")) {
            button.setAttribute("aria-pressed", button.classList.contains("primary"));
        }
        const infos = "[data-testid=block-info].has-info + div, .fk-check > div:not(.wrap)";
        for (const info of panel.querySelectorAll(infos)) {
            for (const input of info.closest(".block").querySelectorAll("input")) {
                input.setAttribute("aria-describedby", idOf(info));
            }
        }
    }

    for (const tab of ["txt2img", "img2img"]) {
        const panel = gradioApp().getElementById(`${tab}_flux_kontext`);
        if (!panel) continue;
        let waiting = false;
        const describeSoon = () => {
            if (waiting) return;
            waiting = true;
            setTimeout(() => {
                waiting = false;
                describe(panel, (name) => gradioApp().getElementById(`${tab}_flux_kontext_${name}`));
            }, 50);
        };
        new MutationObserver(describeSoon).observe(panel, {
            childList: true,
            subtree: true,
            attributes: true,
            attributeFilter: ["class"],
        });
        describeSoon();
    }
});
