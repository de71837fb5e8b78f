"""One machine: door, worker and gateway as children of one process, which starts them again and ends them in order.

parts       the three commands, with what each is told and what is kept from it
child       one process: started, listened to, ended
supervisor  all of them: started, started again where one dies, ended in order
folder      the folder of the data, which one `consisid up` has at a time
"""
