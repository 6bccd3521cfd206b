"""What every demo's training shares: a resumable run with a time budget, and its optimizer."""
