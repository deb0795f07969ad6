"""What people read after a run or a study: tables, figures, pages. Reads run folders; nothing here trains."""
