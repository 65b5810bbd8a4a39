// The records of compact.py, which says what its columns are. A page of few runs has plain lists instead.

function records(table, sigs = null) {
  if (Array.isArray(table)) return table;
  const sig = table.columns.sig;
  const own = sig ? Array.from({ length: table.count }, (_, at) => reader(sig, null)(at)) : sigs;
  const columns = Object.entries(table.columns).map(([key, column]) => [key, reader(column, own)]);
  return Array.from({ length: table.count }, (_, at) => {
    const record = {};
    for (const [key, read] of columns) {
      const value = read(at);
      if (value !== undefined) record[key] = value;
    }
    return record;
  });
}

function reader(column, sigs) {
  if ("each" in column) return (at) => column.each[at];
  if ("of" in column) return (at) => column.of[column.at[at]];
  if ("sig" in column) {
    const read = reader(column.sig, sigs);
    return (at) => read(at).replaceAll("\0", sigs[at]);
  }
  if ("rows" in column) {
    const made = records(column.rows, sigs);
    return (at) => made[at];
  }
  return () => column.same;
}
