"use strict";
// One matrix: its cells open runs, and a run is stepped through. Everything shown is text, never markup.
(() => {
  const root = document.currentScript.closest(".armed-matrix");
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const runs = root.querySelector(".runs");
  const opened = new Map(); // a cell's key -> its article

  function element(tag, text, attributes = {}, children = []) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // --- What a run is in each of its states -------------------------------------------------------------------------

  function members(variable, run) {
    const many = { slot: run.slots, child: run.children }[variable.of];
    return many ? Array.from({ length: many }, (_, i) => `${variable.name}.${i + 1}`) : [variable.name];
  }

  function statesOf(run) {
    const first = {};
    for (const each of data.variables) for (const key of members(each, run)) first[key] = data.blank[each.name];
    const states = [first];
    for (const step of run.steps) states.push({ ...states[states.length - 1], ...step.sets });
    return states;
  }

  function isShown(variable, run) {
    const keys = members(variable, run);
    return data.always.includes(variable.name) || run.steps.some((step) => keys.some((key) => key in step.sets));
  }

  function inWords(variable) {
    return variable.name.replaceAll("_", " ");
  }

  function changesOf(step) {
    return Object.entries(step.sets).map(([key, value]) => {
      const [name, number] = key.split(".");
      const variable = data.variables.find((each) => each.name === name);
      return `${inWords(variable)}${number ? ` of ${variable.of} ${number}` : ""} becomes ${value}`;
    });
  }

  function title(step) {
    return step.action.replaceAll("_", " ") + (step.of ? ` (${step.of})` : "");
  }

  function told(run, at) {
    if (!at) return "At first: nobody is there, and every slot is unused.";
    const step = run.steps[at - 1];
    return `The ${step.by}: ${title(step)}. ${step.does}`;
  }

  // --- Tables ------------------------------------------------------------------------------------------------------

  function tableOf(caption, of, run, state, moved) {
    const head = [];
    const rows = [];
    for (const group of data.groups) {
      const shown = data.variables.filter((each) => each.group === group && each.of === of && isShown(each, run));
      if (!shown.length) continue;
      const width = members(shown[0], run).length;
      if (of && !head.length) {
        const names = members(shown[0], run).map((_, i) => element("th", `${of} ${i + 1}`, { scope: "col" }));
        head.push(element("tr", "", {}, [element("td"), ...names]));
      }
      rows.push(element("tr", "", { class: "group" }, [element("th", group, { colspan: width + 1, scope: "rowgroup" })]));
      for (const each of shown) {
        const values = members(each, run).map((key) => element("td", state[key], key in moved ? { class: "moved" } : {}));
        const name = element("th", inWords(each), { scope: "row", title: each.meaning });
        rows.push(element("tr", "", group === data.groups[3] ? { class: "ghost" } : {}, [name, ...values]));
      }
    }
    return element("table", "", {}, [element("caption", caption), ...head, ...rows]);
  }

  function wholeTable(run) {
    const rows = run.steps.map((step, i) =>
      element("tr", "", {}, [
        element("td", String(i + 1)), element("td", step.by), element("td", title(step)),
        element("td", step.does), element("td", changesOf(step).join("; ")),
      ]));
    const names = ["", "who", "step", "what it is", "what it changes"].map((name) => element("th", name, { scope: "col" }));
    return [element("tr", "", {}, names), ...rows];
  }

  // --- One open run ------------------------------------------------------------------------------------------------

  function show(article, which) {
    const run = opened.get(article.dataset.of).cell.runs[which];
    const part = (selector) => article.querySelector(selector);
    for (const each of part(".which").children) each.setAttribute("aria-pressed", each.dataset.which === which);
    part(".stepper").hidden = !run || Boolean(run.unknown);
    part(".all").replaceChildren();
    if (!run) return;
    if (run.unknown) { // of another version of the model: the actions are all that is known of it
      part(".why").textContent += " This version of the model does not take its run: " +
        run.steps.map((step) => `${step.action}(${step.arguments.join(", ")})`).join(", ") + ".";
      return;
    }
    const states = statesOf(run);
    const names = ["at first", ...run.steps.map(title)];
    part(".steps").replaceChildren(...names.map((name, i) =>
      element("li", "", {}, [element("button", name, { type: "button", "data-at": i })])));
    part(".all").replaceChildren(...wholeTable(run));
    const go = (at) => {
      article.dataset.at = at = Math.max(0, Math.min(run.steps.length, at));
      const moved = at ? run.steps[at - 1].sets : {};
      part("output").textContent = `Step ${at} of ${run.steps.length}`;
      part(".said").textContent = told(run, at);
      part(".state").replaceChildren(
        tableOf("The supervisor", "", run, states[at], moved),
        tableOf("Slots", "slot", run, states[at], moved),
        tableOf("Children", "child", run, states[at], moved));
      part(".steps").querySelectorAll("button").forEach((each, i) =>
        i === at ? each.setAttribute("aria-current", "step") : each.removeAttribute("aria-current"));
      for (const [name, off] of [["first", !at], ["previous", !at], ["next", at === run.steps.length], ["last", at === run.steps.length]]) {
        // Not `disabled`: that would take the focus away from who steps by keyboard.
        part(`[data-go=${name}]`).setAttribute("aria-disabled", off);
      }
    };
    opened.get(article.dataset.of).go = { to: go, last: run.steps.length };
    go(0);
  }

  function act(article, what) {
    const { go, button } = opened.get(article.dataset.of);
    const at = Number(article.dataset.at);
    if (what === "close") {
      opened.delete(article.dataset.of);
      button.setAttribute("aria-expanded", "false");
      article.remove();
      button.focus();
    } else if (go) {
      go.to({ first: 0, previous: at - 1, next: at + 1, last: go.last }[what]);
    }
  }

  function open(button) {
    const key = button.dataset.cell;
    if (!opened.has(key)) {
      const cell = data.cells[key];
      const article = root.querySelector("template").content.firstElementChild.cloneNode(true);
      article.dataset.of = key;
      article.setAttribute("aria-label", `${cell.property} in ${cell.profile}`);
      article.querySelector("h3").textContent = `${cell.property} in ${cell.profile}: ${cell.verdict}`;
      article.querySelector(".sentence").textContent = cell.sentence;
      article.querySelector(".why").textContent = why(cell);
      const names = { counterexample: "The run that refutes it", premise: "The run that reaches its premise" };
      article.querySelector(".which").replaceChildren(...Object.keys(names).filter((each) => cell.runs[each]).map((each) =>
        element("button", names[each], { type: "button", "data-which": each })));
      opened.set(key, { cell, button, article });
      button.setAttribute("aria-expanded", "true");
      runs.prepend(article);
      show(article, cell.runs.counterexample ? "counterexample" : "premise");
    }
    const { article } = opened.get(key);
    article.focus();
    article.scrollIntoView({ block: "start" });
  }

  function why(cell) {
    if (cell.verdict === "out of scope") return `Out of scope: ${cell.reason}.`;
    const mended = cell.mended_by ? ` Mended by ${cell.mended_by}.` : "";
    if (cell.verdict === "refuted") return `${cell.finding}${mended} Within ${cell.scope}; a run refutes for good.`;
    if (cell.verdict === "open") return `Neither proved nor refuted: ${cell.failures.join("; ") || "its premise was not reached"}.`;
    if (cell.verdict !== "proved") return `Not a verdict: ${cell.verdict}.`;
    return `For any number of slots and children, in the environment ${cell.environment}; ${cell.obligations} queries, ` +
      `under ${cell.assumptions.join(", ")}.${cell.definitional ? " It needs no invariant." : ""}`;
  }

  // --- Keys and clicks ---------------------------------------------------------------------------------------------

  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const article = button.closest("article");
    if (button.dataset.cell) { rove(button); open(button); }
    else if (button.dataset.which) show(article, button.dataset.which);
    else if (button.dataset.at) opened.get(article.dataset.of).go.to(Number(button.dataset.at));
    else act(article, button.dataset.go);
  });

  const KEYS = { ArrowLeft: "previous", ArrowRight: "next", Home: "first", End: "last", Escape: "close" };
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const article = event.target.closest("article");
    const button = event.target.closest("[data-cell]");
    if (article && KEYS[event.key]) act(article, KEYS[event.key]);
    else if (button && neighbour(button, event.key)) rove(neighbour(button, event.key)).focus();
    else return;
    event.preventDefault();
  });

  // A grid is one stop of the Tab key: the arrow keys move in it, Home and End along a row.
  const buttons = () => [...root.querySelectorAll("[data-cell]")];
  function rove(button) {
    for (const each of button.closest(".grid").querySelectorAll("[data-cell]")) each.tabIndex = -1;
    button.tabIndex = 0;
    return button;
  }
  function neighbour(button, key) {
    const row = button.closest("[role=row]");
    const mine = [...row.querySelectorAll("[data-cell]")];
    const at = mine.indexOf(button);
    if (key === "Home") return mine[0];
    if (key === "End") return mine[mine.length - 1];
    if (key === "ArrowLeft" || key === "ArrowRight") return mine[at + (key === "ArrowLeft" ? -1 : 1)];
    if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
    const column = [...row.children].indexOf(button.parentElement);
    let other = row;
    while ((other = key === "ArrowUp" ? other.previousElementSibling : other.nextElementSibling)) {
      const found = other.children[column].querySelector("[data-cell]");
      if (found) return found;
    }
    return undefined;
  }
  for (const grid of root.querySelectorAll(".grid")) rove(grid.querySelector("[data-cell]"));
  for (const button of buttons()) button.setAttribute("aria-expanded", "false");
})();
