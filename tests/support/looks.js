// Judges what stands on the page: () => { contrast: [...], clipped: [...], overlapping: [...] }, each a list of faults.
([selectors, least]) => {
    const faults = { contrast: [], clipped: [], overlapping: [] };
    const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(".fk-spoken");
    const name = (element) =>
        `${element.closest("[id]")?.id} ${(element.textContent || element.ariaLabel || "").trim().slice(0, 40)}`;

    // Colours, as what the eye gets: layers of background and opacity laid over each other.
    const colours = (text) =>
        [...text.matchAll(/rgba?\(([^)]*)\)/g)].map(([, numbers]) => {
            const [red, green, blue, alpha = 1] = numbers.split(/[\s,/]+/).map(Number);
            return [red, green, blue, alpha];
        });
    const over = (top, below, alpha) => [0, 1, 2].map((i) => top[i] * alpha + below[i] * (1 - alpha));
    function backgrounds(element) {
        if (!element) return [[255, 255, 255]];
        const style = getComputedStyle(element);
        const plain = colours(style.backgroundColor)[0] || [0, 0, 0, 0];
        const layers = style.backgroundImage.includes("gradient") ? colours(style.backgroundImage) : [plain];
        if (layers.every((layer) => layer[3] === 1)) return layers;
        const below = backgrounds(element.parentElement);
        return layers.flatMap((layer) => below.map((colour) => over(layer, colour, layer[3])));
    }
    function opacity(element) {
        return element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
    }
    const luminance = (colour) => {
        const [red, green, blue] = colour.map((channel) => {
            const share = channel / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    function contrast(element) {
        const style = getComputedStyle(element);
        const [colour] = colours(element instanceof SVGElement ? style.fill : style.color);
        return Math.min(
            ...backgrounds(element).map((ground) => {
                const seen = over(colour, ground, (colour[3] ?? 1) * opacity(element));
                const [dark, light] = [luminance(seen), luminance(ground)].sort((a, b) => a - b);
                return (light + 0.05) / (dark + 0.05);
            }),
        );
    }

    // Side by side there have to be two pixels between them.
    const meets = (a, b) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > -2 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
    function clip(element, box, root) {
        for (let outer = element.parentElement; outer; outer = outer.parentElement) {
            const style = getComputedStyle(outer);
            const frame = outer.getBoundingClientRect();
            if (["auto", "scroll"].includes(style.overflowX)) return; // what does not fit can be scrolled to
            const across = style.overflowX !== "visible" && (box.left < frame.left - 1 || box.right > frame.right + 1);
            const down = style.overflowY !== "visible" && (box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
            if (across || down || (outer === root && (box.left < frame.left - 1 || box.right > frame.right + 1))) {
                faults.clipped.push(name(element));
                return;
            }
            if (outer === root) return;
        }
    }

    for (const root of selectors.map((selector) => document.querySelector(selector))) {
        const words = [];
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || !shown(element) || element.closest("style, title")) continue;
            const range = document.createRange();
            range.selectNodeContents(walker.currentNode);
            words.push([element, range.getBoundingClientRect()]);
        }
        const controls = [...root.querySelectorAll("button, input, summary, textarea, a")]
            .filter((element) => shown(element) && element.getBoundingClientRect().width > 1)
            .map((element) => {
                const { x, y, width, height } = element.getBoundingClientRect();
                // stands out of its track; the comparison's lies over its picture
                const thumb = element.type === "range" && !element.closest(".fk-compare") ? 8 : 0;
                return [element, new DOMRect(x, y - thumb, width, height + 2 * thumb)];
            });
        const fields = [...root.querySelectorAll("input:is([type=number], :not([type])), textarea")];
        const written = fields.filter((element) => shown(element) && element.value);
        for (const element of new Set([...words.map(([element]) => element), ...written])) {
            // What cannot be used now need not stand out, and Forge's emoji have colours of their own.
            if (element.closest(":disabled") || element.matches(".image-buttons > :not(.fk-to-slot)")) continue;
            const ratio = contrast(element);
            if (!(ratio >= least)) faults.contrast.push(`${name(element)}: ${ratio.toFixed(2)}`);
        }
        for (const [element, box] of [...words, ...controls]) clip(element, box, root);
        for (const [control, box] of controls) {
            for (const [element, place] of [...controls, ...words]) {
                if (control.closest(".fk-compare")?.contains(element)) continue;
                if (control.contains(element) || element.contains(control) || element.closest("label")?.contains(control)) continue;
                if (meets(box, place)) faults.overlapping.push(`${name(control)} and ${name(element)}`);
            }
        }
    }
    return faults;
};
