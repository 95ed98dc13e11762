"""What people and machines see of a running node: health, metrics, status, SQL, reconcile, the demo page."""
