// Pictures on their way into the reference slots: several files dropped at once fill several slots, a pasted picture
// goes to the first empty one, and a reference dragged to another slot changes places with what is there.
onUiLoaded(function () {
    const MINE = "application/x-flux-kontext-slot";
    const NUMBERS = [1, 2, 3, 4];
    const tabs = ["txt2img", "img2img"];
    const part = (tab, name) => gradioApp().getElementById(`${tab}_flux_kontext_${name}`);
    const slot = (tab, number) => part(tab, `image${number}`);
    const isEmpty = (element) => element !== null && element.querySelector(".image-frame img") === null;
    const inSight = (element) => element !== null && element.offsetParent !== null;
    const pictures = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));

    // The slot that an event happened in, or null.
    function slotOf(event) {
        const target = event.composedPath()[0];
        for (const tab of tabs) {
            for (const number of NUMBERS) {
                const element = slot(tab, number);
                if (element?.contains(target)) return { tab, number };
            }
        }
        return null;
    }

    // gradio takes some time to show a slot's field for files, and the second row of slots.
    async function soon(find) {
        for (let tries = 0; tries < 100; tries++) {
            const found = find();
            if (found) return found;
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
        return null;
    }

    async function put(tab, number, file) {
        // Where the clipboard was chosen as the source, gradio has no field for files until the upload is chosen again.
        const source = slot(tab, number)?.querySelector(".source-selection button[aria-label='Upload file']");
        if (source && !slot(tab, number).querySelector("input[type=file]")) source.click();
        const field = await soon(() => slot(tab, number)?.querySelector("input[type=file]"));
        if (field === null) return;
        const transfer = new DataTransfer();
        transfer.items.add(file);
        field.files = transfer.files;
        field.dispatchEvent(new Event("change", { bubbles: true }));
        await soon(() => !isEmpty(slot(tab, number)));
    }

    // Fill empty slots in order, beginning with one; the next row appears when the first is full.
    async function fill(tab, first, files) {
        const order = [...NUMBERS.slice(first - 1), ...NUMBERS.slice(0, first - 1)];
        const full = order.filter((number) => slot(tab, number) !== null && !isEmpty(slot(tab, number)));
        for (const number of order.filter((number) => !full.includes(number))) {
            if (files.length === 0) return;
            await put(tab, number, files.shift());
        }
    }

    // gradio marks the slot that something hovers over, and would never hear that it was dropped.
    function take(event) {
        if (event.type === "drop") event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
        event.preventDefault();
        event.stopImmediatePropagation();
    }

    window.addEventListener("dragstart", (event) => {
        const from = slotOf(event);
        if (from && !isEmpty(slot(from.tab, from.number))) event.dataTransfer.setData(MINE, `${from.tab} ${from.number}`);
    }, true);

    let moves = 0;
    window.addEventListener("drop", (event) => {
        const to = slotOf(event);
        if (to === null) return;
        const [tab, number] = event.dataTransfer.getData(MINE).split(" ");
        const files = pictures(event.dataTransfer);
        if (tab === to.tab) {
            take(event);
            if (Number(number) === to.number) return;
            const moved = part(tab, "moved").querySelector("textarea, input");
            moved.value = `${number} ${to.number} ${++moves}`;
            updateInput(moved);
        } else if (files.length > 1) {
            take(event);
            fill(to.tab, to.number, files);
        }
    }, true);

    window.addEventListener("dragover", (event) => {
        if (event.dataTransfer.types.includes(MINE) && slotOf(event)) event.preventDefault();
    }, true);

    window.addEventListener("paste", (event) => {
        const files = pictures(event.clipboardData);
        const tab = tabs.find((tab) => inSight(part(tab, "slot1")));
        // Over img2img's own canvas a picture goes there, and where text was copied with it, into the text field.
        const isText = event.target.closest?.("textarea, input") && event.clipboardData.types.includes("text/plain");
        if (!tab || files.length === 0 || isText || document.querySelector(".forge-container:hover")) return;
        const empty = NUMBERS.find((number) => isEmpty(slot(tab, number)) && inSight(slot(tab, number)));
        if (empty === undefined) return;
        take(event);
        fill(tab, empty, files);
    }, true);
});
