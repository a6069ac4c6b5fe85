// The prompt help of each panel. A chosen pattern goes into the prompt where its cursor is, with the first blank
// selected, so that typing fills it in. While the panel is in sight, the prompt's length is asked for once the prompt
// has changed and rested.
onUiLoaded(function () {
    const PERIOD = 700;
    const BLANK = /\[[^\]]*\]/;
    for (const tab of ["txt2img", "img2img"]) {
        const element = (name) => gradioApp().getElementById(`${tab}_${name}`);
        const [ideas, count] = ["flux_kontext_prompt_ideas", "flux_kontext_count_tokens"].map(element);
        const menu = ideas?.querySelector("details");
        const textarea = element("prompt")?.querySelector("textarea");
        if (!menu || !count || !textarea) continue;

        let last = null; // the prompt after the last insertion, the end of its selection, and that of the pattern
        function insert(pattern) {
            const prompt = textarea.value;
            let at = textarea.selectionEnd;
            if (last && prompt === last.prompt && at === last.selected) at = last.end; // behind it, not inside
            const space = /[^\s([]$/.test(prompt.slice(0, at)) ? " " : "";
            const text = space + pattern + (/^[^\s.,:;!?)\]]/.test(prompt.slice(at)) ? " " : "");
            textarea.focus();
            textarea.setSelectionRange(at, at);
            // Ctrl+Z takes this back, but not setRangeText.
            if (!document.execCommand("insertText", false, text)) textarea.setRangeText(text, at, at, "end");
            updateInput(textarea);
            const start = at + space.length;
            const blank = BLANK.exec(pattern);
            const selected = start + blank.index + blank[0].length;
            textarea.setSelectionRange(start + blank.index, selected);
            last = { prompt: textarea.value, selected, end: start + pattern.length };
        }

        menu.addEventListener("click", (event) => {
            const pattern = event.target.closest("button")?.dataset.pattern;
            if (!pattern) return;
            menu.open = false;
            insert(pattern);
        });
        menu.addEventListener("toggle", () => {
            // The note says what the instructions do not: that another language is inserted than they are shown in.
            const button = menu.querySelector("button");
            menu.querySelector("p").hidden = button.lastElementChild.textContent === button.dataset.pattern;
        });
        menu.addEventListener("keydown", (event) => {
            if (event.key !== "Escape" || !menu.open) return;
            event.stopPropagation(); // Forge would interrupt the generation
            menu.open = false;
            menu.querySelector("summary").focus();
        });
        menu.addEventListener("focusout", (event) => {
            if (event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
        });
        document.addEventListener("pointerdown", (event) => {
            if (!menu.contains(event.target)) menu.open = false;
        });

        // Looked at instead of listened to: pasted parameters set the prompt without an event, and opening the panel
        // changes nothing in it.
        let [seen, counted] = ["", ""];
        setInterval(() => {
            const prompt = textarea.value;
            if (prompt === seen && prompt !== counted && !document.hidden && menu.offsetParent !== null) {
                counted = prompt;
                count.click();
            }
            seen = prompt;
        }, PERIOD);
    }
});
