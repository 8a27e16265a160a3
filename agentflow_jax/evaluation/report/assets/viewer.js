// The viewer of trajectories: filters, pages, one trajectory turn by turn.
// Everything shown was written by models and tools: it is only ever set as
// textContent, so it stays text.
(() => {
  "use strict";

  const holder = document.getElementById("trajectory-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const PAGE = 20;
  const SIGNS = { right: "✓ right", wrong: "✗ wrong", unscored: "– lost" };
  const by = (id) => document.getElementById(id);
  const root = by("viewer");
  const form = root.querySelector("form");
  const list = by("viewer-list");
  const one = by("viewer-one");
  const parts = root.querySelector(".viewer-parts");

  // A text is a path in a tree of lines; see viewer_data.py.
  const known = new Map();
  function text(node) {
    if (!node) return "";
    if (known.has(node)) return known.get(node);
    const lines = [];
    for (let at = node; at; at = data.nodes[2 * at - 2]) {
      lines.push(data.lines[data.nodes[2 * at - 1]]);
    }
    const whole = lines.reverse().join("\n");
    known.set(node, whole);
    return whole;
  }

  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children.filter((c) => c !== "" && c != null));
    return made;
  }

  const span = (className, ...children) =>
    element("span", className, ...children);

  // Numbers with a true minus sign, as in the charts.
  function amount(value, digits) {
    const shown =
      digits === undefined
        ? String(Number(value.toPrecision(4)))
        : value.toFixed(digits);
    return shown.replace("-", "−");
  }

  const count = (number, noun) =>
    `${number} ${noun}${number === 1 ? "" : "s"}`;

  function split(item) {
    return item.when ? item.split + ", " + item.when : item.split;
  }

  const VALUES = {
    run: (item) => data.runs[item.run],
    split,
    step: (item) => (item.step === undefined ? "" : String(item.step)),
    family: (item) => text(item.family) || "none",
    outcome: (item) => SIGNS[item.outcome],
    stop: (item) => text(item.stop) || "none",
  };

  const needles = data.items.map((item) =>
    (text(item.question) + "\n" + text(item.answer)).toLowerCase(),
  );
  let chosen = data.items.map((item, index) => index);
  let page = 0;
  let current = -1; // index into `chosen`

  function fillFilters() {
    for (const [name, value] of Object.entries(VALUES)) {
      const select = form.elements[name];
      if (!select) continue;
      const counts = new Map();
      data.items.forEach((item) => {
        counts.set(value(item), (counts.get(value(item)) || 0) + 1);
      });
      const names = [...counts.keys()];
      if (name === "step") names.sort((a, b) => Number(a) - Number(b));
      else if (name !== "run" && name !== "split") names.sort();
      select.append(new Option("all", ""));
      names.forEach((choice) => {
        select.append(new Option(`${choice} (${counts.get(choice)})`, choice));
      });
      select.disabled = names.length < 2;
    }
  }

  function filter() {
    const wanted = Object.entries(VALUES)
      .map(([name, value]) => [form.elements[name], value])
      .filter(([select]) => select && select.value);
    const needle = form.elements.text.value.toLowerCase();
    chosen = [];
    data.items.forEach((item, index) => {
      if (
        wanted.every(([select, value]) => value(item) === select.value) &&
        needles[index].includes(needle)
      ) {
        chosen.push(index);
      }
    });
    page = 0;
    select(chosen.length ? 0 : -1);
  }

  function pages() {
    return Math.max(1, Math.ceil(chosen.length / PAGE));
  }

  function drawList() {
    const start = page * PAGE;
    list.start = start + 1;
    list.replaceChildren(
      ...chosen.slice(start, start + PAGE).map((index, offset) => {
        const item = data.items[index];
        const button = element(
          "button",
          "viewer-row",
          span("outcome " + item.outcome, SIGNS[item.outcome]),
          span("question", text(item.question) || text(item.id) || "no text"),
          span(
            "facts",
            [
              data.runs.length > 1 ? VALUES.run(item) : "",
              item.when ? split(item) : "",
              item.step === undefined ? "" : "step " + item.step,
              text(item.family),
              item.member === undefined ? "" : "member " + item.member,
              count((item.turns || []).length, "turn"),
            ]
              .filter(Boolean)
              .join(" · "),
          ),
        );
        button.type = "button";
        button.tabIndex = start + offset === current ? 0 : -1;
        if (start + offset === current) {
          button.setAttribute("aria-current", "true");
        }
        button.addEventListener("click", () => {
          select(start + offset);
          list.querySelector("[aria-current]").focus();
          if (isStacked()) show(one);
        });
        return element("li", "", button);
      }),
    );
    const end = Math.min(start + PAGE, chosen.length);
    by("viewer-page").textContent = chosen.length
      ? `${start + 1} to ${end} of ${chosen.length}`
      : "none fits";
    by("viewer-back").disabled = page === 0;
    by("viewer-on").disabled = page + 1 >= pages();
  }

  // On narrow screens the trajectory stands below the list.
  function isStacked() {
    const end = list.getBoundingClientRect().bottom;
    return one.getBoundingClientRect().top >= end;
  }

  function show(node) {
    node.scrollIntoView({ block: "start" });
    node.focus({ preventScroll: true });
  }

  function select(index) {
    current = index;
    if (index >= 0) page = Math.floor(index / PAGE);
    drawList();
    one.replaceChildren(
      ...(index >= 0
        ? trajectory(data.items[chosen[index]])
        : [element("p", "missing", "No trajectory fits these filters.")]),
    );
  }

  // One trajectory.

  function trajectory(item) {
    const references = (item.references || []).map(text).join(" / ");
    const turns = (item.turns || []).map((turn, i) => turnItem(item, turn, i));
    if (item.more_turns) {
      turns.push(element("li", "note", "Not shown: " + count(item.more_turns, "turn")));
    }
    return [
      element("h3", "question", text(item.question) || text(item.id)),
      facts(item),
      element(
        "p",
        "answer " + item.outcome,
        span("label", "Answer"),
        span("text", text(item.answer) || "none"),
        span("outcome " + item.outcome, SIGNS[item.outcome]),
        references && span("label", "Reference"),
        references && span("text", references),
      ),
      item.failure
        ? element("p", "error", "Failure: ", span("text", text(item.failure)))
        : "",
      element("ol", "turns", ...turns),
      ...finish(item),
    ].filter((child) => child !== "");
  }

  function facts(item) {
    const rows = [
      ["Split", split(item)],
      ["Step", item.step],
      ["Family", text(item.family)],
      ["Source", text(item.source)],
      ["Scorer", text(item.scorer)],
      ["Member", item.member],
      ["Policy version", item.version],
      ["Reward", item.reward === undefined ? "none" : amount(item.reward)],
      [
        "Advantage",
        item.advantage === undefined ? undefined : amount(item.advantage, 3),
      ],
      ["Stopped by", text(item.stop)],
      [
        "Seconds",
        item.seconds === undefined ? undefined : amount(item.seconds),
      ],
      ["Flags", (item.flags || []).map(text).join(", ")],
      ["Id", text(item.id)],
    ];
    if (data.runs.length > 1) rows.unshift(["Run", data.runs[item.run]]);
    return element(
      "dl",
      "facts",
      ...rows
        .filter(([, value]) => value !== undefined && value !== "")
        .map(([label, value]) =>
          element(
            "div",
            String(value).length > 18 ? "long" : "",
            element("dt", "", label),
            element("dd", "", String(value)),
          ),
        ),
    );
  }

  function row(label, ...children) {
    return [element("dt", "", label), element("dd", "", ...children)];
  }

  function turnItem(item, turn, index) {
    const plan = turn.plan || {};
    const modules = turn.modules || [];
    const rows = plan.tool ? planRows(plan) : unreadRows(plan, modules);
    modules
      .filter((module) => module.ids)
      .forEach((module) => {
        rows.push(...row("Tokens", ...tokens(item, module)));
      });
    (turn.tools || []).forEach((call) => {
      rows.push(...row("Call", element("code", "text", text(call))));
    });
    if (!turn.tools && turn.command) {
      rows.push(...row("Command", element("code", "text", text(turn.command))));
    }
    (turn.results || []).forEach((result) => {
      rows.push(
        ...row(
          "Result",
          result.error ? span("error", "error: " + text(result.error)) : "",
          span("text", text(result.text)),
          result.cut ? span("note", `${result.cut} characters cut`) : "",
        ),
      );
    });
    if (turn.halt !== undefined) rows.push(...verdictRow(turn));
    if (modules.length) {
      rows.push(...row("Asked", ...modules.map((m) => asked(m))));
    }
    return element(
      "li",
      "",
      element(
        "p",
        "turn-head",
        span("label", "Turn " + (index + 1)),
        plan.tool ? span("tool", text(plan.tool)) : "",
        turn.seconds === undefined
          ? ""
          : span("note", amount(Number(turn.seconds.toPrecision(2))) + " s"),
      ),
      element("dl", "", ...rows),
    );
  }

  function planRows(plan) {
    return row(
      "Plan",
      span("text", text(plan.goal)),
      plan.context ? span("context", "context: " + text(plan.context)) : "",
      plan.why ? span("context", text(plan.why)) : "",
    );
  }

  function unreadRows(plan, modules) {
    const planner = modules.find((module) =>
      ["planner", "policy"].includes(text(module.role)),
    );
    return row(
      "Plan",
      span("error", "unreadable: " + (text(plan.unread) || "no plan recorded")),
      planner ? span("text", text(planner.text)) : "",
    );
  }

  function verdictRow(turn) {
    return row(
      "Verdict",
      span(
        "verdict " + (turn.halt ? "stop" : "continue"),
        turn.halt ? "STOP" : "CONTINUE",
      ),
      turn.unread ? span("error", "unreadable, so it continues") : "",
      turn.reason ? span("text", text(turn.reason)) : "",
    );
  }

  function finish(item) {
    const outputs = (item.outputs || []).flatMap(([name, said]) =>
      row("Output: " + text(name), span("text", text(said))),
    );
    const calls = (item.calls || []).map((module) => asked(module));
    if (!outputs.length && !calls.length) return [];
    return [
      element(
        "dl",
        "viewer-end",
        ...outputs,
        ...(calls.length ? row("Asked", ...calls) : []),
      ),
    ];
  }

  // Prompts are long: their text is made when they are opened.
  function folded(title, fill) {
    const details = element("details", "", element("summary", "", title));
    details.addEventListener(
      "toggle",
      () => details.append(...fill()),
      { once: true },
    );
    return details;
  }

  function asked(module) {
    const role = text(module.role) || "module";
    const about = [role];
    if (module.prompt_tokens) about.push(module.prompt_tokens + " prompt tokens");
    if (module.version !== undefined) about.push("policy " + module.version);
    if (module.finish) about.push(text(module.finish));
    return folded(about.join(" · "), () => [
      ...(module.messages || []).flatMap(([who, said]) => [
        element("h5", "", "to " + role + ", " + text(who)),
        element("pre", "text", text(said)),
      ]),
      element("h5", "", role + " wrote"),
      element("pre", "text", text(module.text) || "(nothing)"),
      ...(module.prompt_ids
        ? [
            element("h5", "", "prompt ids"),
            element("pre", "text", text(module.prompt_ids)),
          ]
        : []),
    ]);
  }

  function piece(item, id) {
    const found = (data.pieces[item.run] || {})[id];
    return found === undefined || found === "" ? `⟨${id}⟩` : found;
  }

  function tokens(item, module) {
    const logprobs = module.logprobs || [];
    const stream = module.ids.map((id, i) => {
      const token = span("token", piece(item, id));
      const value = logprobs[i];
      const told = [`id ${id}`];
      if (value != null) {
        told.push(`logprob ${amount(value, 4)}`);
        const heat = 1 - Math.exp(Math.min(value, 0)); // how improbable
        token.style.setProperty("--heat", heat.toFixed(3));
      }
      if (item.advantage !== undefined) {
        const strength = Math.min(1, Math.abs(item.advantage) / 2);
        token.style.setProperty("--strength", strength.toFixed(3));
        token.classList.add(item.advantage < 0 ? "down" : "up");
      }
      token.title = told.join(", ");
      return token;
    });
    if (module.more_ids) {
      stream.push(span("note", "Not shown: " + count(module.more_ids, "token")));
    }
    return [
      element("div", "tokens", ...stream),
      folded(count(module.ids.length, "id") + " and logprobs", () => [
        tokenTable(item, module),
      ]),
    ];
  }

  function tokenTable(item, module) {
    const logprobs = module.logprobs || [];
    const head = ["token", "id", "logprob", "probability", "advantage"];
    const cell = (value) => element("td", "", value);
    const body = module.ids.map((id, i) => {
      const value = logprobs[i];
      return element(
        "tr",
        "",
        element("td", "text", piece(item, id).replaceAll("\n", "↵")),
        cell(String(id)),
        cell(value == null ? "–" : amount(value, 4)),
        cell(value == null ? "–" : amount(100 * Math.exp(value), 1) + "%"),
        cell(item.advantage === undefined ? "–" : amount(item.advantage, 3)),
      );
    });
    const table = element(
      "table",
      "",
      element(
        "thead",
        "",
        element("tr", "", ...head.map((name) => element("th", "", name))),
      ),
      element("tbody", "", ...body),
    );
    const scroll = element("div", "scroll", table);
    scroll.tabIndex = 0;
    return scroll;
  }

  // Keys and events.

  function move(index) {
    if (!chosen.length) return;
    select(Math.min(Math.max(index, 0), chosen.length - 1));
    list.querySelector("[aria-current]").focus();
  }

  list.addEventListener("keydown", (event) => {
    const moves = {
      ArrowUp: current - 1,
      ArrowDown: current + 1,
      ArrowLeft: current - PAGE,
      ArrowRight: current + PAGE,
      Home: 0,
      End: chosen.length - 1,
    };
    if (event.key === "Enter") show(one);
    else if (event.key in moves) move(moves[event.key]);
    else return;
    event.preventDefault();
  });

  one.addEventListener("keydown", (event) => {
    if (event.key === "Escape") move(current);
  });

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    form.elements.text.focus();
  });

  function shade() {
    parts.dataset.shade = form.elements.shade.value;
  }

  by("viewer-back").addEventListener("click", () => move((page - 1) * PAGE));
  by("viewer-on").addEventListener("click", () => move((page + 1) * PAGE));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target === form.elements.shade) shade();
    else filter();
  });
  form.addEventListener("reset", () => setTimeout(() => {
    shade();
    filter();
  }));

  fillFilters();
  shade();
  root.hidden = false;
  filter();
})();
