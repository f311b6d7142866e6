"""Job files for clusters: a command that trains, as a job of Slurm, Kubernetes or SkyPilot."""
