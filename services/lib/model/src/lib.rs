//! Pure domain model of Baetyl: names, resources, desire, report, planning.
