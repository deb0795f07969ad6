// The table of settings: rows with what is searched for. Goes on from the files before, in the same script.

{
  const query = byId("setting");
  const rows = [...query.closest("details").querySelectorAll("tbody tr")];
  const lower = rows.map((row) => row.textContent.toLowerCase());
  const find = () => {
    const wanted = query.value.trim().toLowerCase();
    rows.forEach((row, n) => {
      row.hidden = !lower[n].includes(wanted);
    });
    byId("settings-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  query.addEventListener("input", find);
  query.parentElement.hidden = false;
  find();
}
